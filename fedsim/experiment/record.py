"""What is left of a run? The record on disk, and the tallies of its summary."""

import csv
import fcntl
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Literal, cast

from fedsim.errors import InputError, StorageError

EVENTS = "events.jsonl"
METRICS = "metrics.csv"
MANIFEST = "manifest.json"
SUMMARY = "summary.json"
ADAPTER = "adapter"

RecordLines = Literal["all", "versions"]
OF_VERSIONS = frozenset({"fleet", "aggregated", "measured", "round_closed", "evaluated", "stopped"})
"""Events that are not about one assignment or one device."""

METRIC_COLUMNS = (
    "version",
    "time_s",
    "round",
    "num_updates",
    "bytes_down",
    "bytes_up",
    "loss",
    "token_accuracy",
)


def claim_directory(out: Path | None, name: str, seed: int) -> Path:
    """Make the directory of a run.

    Args:
        out: Where the user wants it, or None for the next free ``runs/NAME-sSEED-N``.
        name: Of the scenario.
        seed: Of the run.

    Raises:
        InputError: If the directory is there and not empty, or cannot be made.
    """
    if out is None:
        return _next_free(Path("runs"), f"{name}-s{seed}")
    if out.exists() and (not out.is_dir() or any(path.suffix != ".tmp" for path in out.iterdir())):
        way_out = "choose another"
        if (out / MANIFEST).exists():
            way_out += f", or go on with the run in it: fedsim run --resume {out}"
        raise InputError(
            f"--out {out}: expected a new or empty directory, found one with files in it; {way_out}"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--out {out}: cannot be made: {error.strerror}; choose another directory"
        ) from error
    return out


def _next_free(parent: Path, stem: str) -> Path:
    try:
        parent.mkdir(exist_ok=True)
        number = 1
        while True:
            directory = parent / f"{stem}-{number:03d}"
            try:
                directory.mkdir()
            except FileExistsError:
                number += 1
            else:
                return directory
    except OSError as error:
        raise InputError(f"{parent}: cannot be written: {error.strerror}; use --out DIR") from error


def json_text(content: Mapping[str, object]) -> str:
    """A JSON file as this module writes it."""
    return json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n"


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write a JSON file whole or not at all.

    Raises:
        StorageError: If it cannot be written.
    """
    temporary = path.with_suffix(".tmp")
    with storing(path):
        with temporary.open("w", encoding="utf-8") as file:
            file.write(json_text(content))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn a failure to write into fedsim's own, which says how to go on."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}; make room, then resume") from error


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a run directory alone; the lock goes with the process, however that ends.

    Raises:
        InputError: If another process is at work in it.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"{directory}: another process is at work in this run; wait for it") from error
        yield
    finally:
        os.close(descriptor)


def json_line(time_s: float, event: str, fields: Mapping[str, object]) -> str:
    """One line of the record; floats keep every bit."""
    return json.dumps({"time_s": time_s, "event": event, **fields}, allow_nan=False) + "\n"


@dataclass(slots=True)
class Tally:
    """Running counts over the record, for progress and summary.

    Args:
        outcomes: Outcome -> assignments; drops count as ``dropped: phase``.
        by_class: Device class -> aggregated updates.
        bytes_down: Bytes that reached clients, over settled assignments.
        bytes_up: Bytes that left clients, over settled assignments.
        events: Event -> lines.
        energy_j: Phase -> joules, over settled assignments; empty where nothing is known.
        lost_j: Of these, joules of assignments that were not aggregated.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    by_class: Counter[str] = field(default_factory=Counter)
    bytes_down: int = 0
    bytes_up: int = 0
    events: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    energy_j: dict[str, float] = field(default_factory=dict)
    lost_j: float = 0.0

    def observe(self, time_s: float, event: str, fields: Mapping[str, object]) -> None:
        """Count one line."""
        del time_s
        self.events[event] += 1
        if event == "round_closed":
            self.rounds += 1
        if event == "settled":
            self._settled(fields)

    def _settled(self, fields: Mapping[str, object]) -> None:
        outcome, phase = str(fields["outcome"]), fields["phase"]
        self.outcomes[f"{outcome}: {phase}" if outcome == "dropped" else outcome] += 1
        if outcome == "aggregated":
            self.by_class[str(fields["device_class"])] += 1
        self.bytes_down += _integer(fields["bytes_down"])
        self.bytes_up += _integer(fields["bytes_up"])
        spent = cast("Mapping[str, float]", fields.get("energy_j", {}))
        for phase, joules in spent.items():
            self.energy_j[phase] = self.energy_j.get(phase, 0.0) + joules
        if outcome != "aggregated":
            self.lost_j += sum(spent.values())

    @property
    def energy(self) -> dict[str, float] | None:
        """Joules by phase, in all and lost; None where the fleet has no coefficients or nobody was asked."""
        if not self.energy_j:
            return None
        return {**self.energy_j, "total": sum(self.energy_j.values()), "lost": self.lost_j}


class Lines:
    """The lines of a record: compared with what is there, then appended.

    Args:
        path: The file.
        resume: Whether the file may be there already.

    Raises:
        StorageError: If it cannot be opened.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        self._path = path
        self._number = 0
        self._end = 0
        with storing(path):
            self._file = path.open("r+b" if resume and path.exists() else "xb")
        self._is_replay = resume

    @property
    def is_replay(self) -> bool:
        """Whether the old record has not been gone through yet."""
        return self._is_replay

    def write(self, line: bytes) -> None:
        """Compare a line with the old record, or append it after the last whole one.

        Raises:
            InputError: If the old record says something else.
            StorageError: If the file cannot be written.
        """
        self._number += 1
        with storing(self._path):
            if self._is_replay and self._is_old(line):
                return
            self._file.write(line)

    def _is_old(self, line: bytes) -> bool:
        found = self._file.readline()
        if found == line:
            self._end += len(line)
            return True
        if not line.startswith(found):
            raise InputError(
                f"{self._path}:{self._number}: this is not what the run says now; {difference(line, found)}"
            )
        self._is_replay = False
        self._file.seek(self._end)
        self._file.truncate()
        return False

    def sync(self) -> None:
        """Wait until everything has reached the disk."""
        if not self._is_replay:
            with storing(self._path):
                self._file.flush()
                os.fsync(self._file.fileno())

    def end(self) -> None:
        """Note that no line follows.

        Raises:
            InputError: If the old record goes on.
        """
        if self._is_replay and self._file.readline():
            raise InputError(f"{self._path}:{self._number + 1}: expected the end of the record, found a line")

    def close(self) -> None:
        """Flush and close.

        Raises:
            StorageError: If the rest cannot be written.
        """
        with storing(self._path):
            self._file.close()


_SHOWN = 160


def difference(expected: bytes, found: bytes) -> str:
    """Say how two lines differ, from a little before the place where they differ."""
    same = next(index for index, pair in enumerate(zip(expected, found, strict=False)) if pair[0] != pair[1])
    start = max(0, same - _SHOWN // 2)
    shown = [repr(text[start : same + _SHOWN // 2].decode(errors="replace")) for text in (expected, found)]
    return f"from byte {start} on expected {shown[0]}, found {shown[1]}"


class Recorder:
    """Writes the record as it is made. Satisfies `fedsim.sim.instrument.Instrument`.

    Lines are flushed whenever a round closes, so a reader from outside sees whole versions.

    Args:
        directory: Where to write; there, and without a record unless one is gone on with.
        resume: Whether there may be a record already. Its lines must come again, one by one; a torn last line
            is dropped, and what follows is appended.
        lines: Whether every line is written, or those that concern whole versions.
        figures: Names of measured figures that get a column in the metrics: means since the row before.
    """

    def __init__(
        self,
        directory: Path,
        figures: Sequence[str] = (),
        *,
        resume: bool = False,
        lines: RecordLines = "all",
    ) -> None:
        self._keeps_all = lines == "all"
        self.directory = directory
        self._figures = tuple(figures)
        self._measured: list[Mapping[str, float | None]] = []
        self.tally = Tally()
        self.evaluations: list[dict[str, object]] = []
        self._hash = hashlib.sha256()
        self._lines = Lines(directory / EVENTS, resume=resume)
        with storing(directory / METRICS):
            mode = "w" if resume else "x"
            self._metrics = (directory / METRICS).open(mode, encoding="utf-8", newline="")
        self._columns: list[str] = []

    def observe(self, time_s: float, event: str, fields: Mapping[str, object]) -> None:
        """Append one line, and a row of metrics after an evaluation."""
        if self._keeps_all or event in OF_VERSIONS:
            line = json_line(time_s, event, fields).encode()
            self._hash.update(line)
            self._lines.write(line)
        self.tally.observe(time_s, event, fields)
        if event == "measured":
            self._measured.append(cast("Mapping[str, float | None]", fields["means"]))
        if event == "evaluated":
            self._measure(time_s, fields)
        if event in ("round_closed", "stopped"):
            self._lines.sync()
        if event == "stopped":
            self._lines.end()

    def _measure(self, time_s: float, fields: Mapping[str, object]) -> None:
        row: dict[str, object] = {
            "time_s": time_s,
            "round": self.tally.rounds,
            "num_updates": self.tally.outcomes["aggregated"],
            "bytes_down": self.tally.bytes_down,
            "bytes_up": self.tally.bytes_up,
            **fields,
            **{name: _mean(means.get(name) for means in self._measured) for name in self._figures},
        }
        self._measured.clear()
        text = io.StringIO()
        if not self._columns:
            self._columns = [*METRIC_COLUMNS, *(name for name in row if name not in METRIC_COLUMNS)]
            csv.writer(text).writerow(self._columns)
        csv.DictWriter(text, self._columns).writerow(row)
        with storing(self.directory / METRICS):
            self._metrics.write(text.getvalue())
            self._metrics.flush()
        self.evaluations.append(row)

    @property
    def record_hash(self) -> str:
        """SHA-256 of `events.jsonl` so far."""
        return self._hash.hexdigest()

    def close(self) -> None:
        """Flush and close both files.

        Raises:
            StorageError: If what was written last does not fit on the disk.
        """
        self._lines.close()
        with storing(self.directory / METRICS):
            self._metrics.close()


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _integer(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"expected a count, got {value!r}")
    return value
