"""What is left of a run? The record on disk, and the tallies of its summary."""

import csv
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import cast

from fedsim.errors import InputError

EVENTS = "events.jsonl"
METRICS = "metrics.csv"
MANIFEST = "manifest.json"
SUMMARY = "summary.json"
ADAPTER = "adapter"

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
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(
            f"--out {out}: expected a new or empty directory, found one with files in it; choose another"
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


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write a JSON file whole or not at all."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=2, sort_keys=True, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


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
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    by_class: Counter[str] = field(default_factory=Counter)
    bytes_down: int = 0
    bytes_up: int = 0
    events: Counter[str] = field(default_factory=Counter)
    rounds: int = 0

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


class Recorder:
    """Writes the record as it is made. Satisfies `fedsim.sim.instrument.Instrument`.

    Lines are flushed whenever a round closes, so a reader from outside sees whole versions.

    Args:
        directory: Where to write; there, and without a record.
        figures: Names of measured figures that get a column in the metrics: means since the row before.
    """

    def __init__(self, directory: Path, figures: Sequence[str] = ()) -> None:
        self.directory = directory
        self._figures = tuple(figures)
        self._measured: list[Mapping[str, float | None]] = []
        self.tally = Tally()
        self.evaluations: list[dict[str, object]] = []
        self._hash = hashlib.sha256()
        self._events = (directory / EVENTS).open("x", encoding="utf-8", newline="\n")
        self._metrics = (directory / METRICS).open("x", encoding="utf-8", newline="")
        self._columns: list[str] = []

    def observe(self, time_s: float, event: str, fields: Mapping[str, object]) -> None:
        """Append one line, and a row of metrics after an evaluation."""
        line = json_line(time_s, event, fields)
        self._hash.update(line.encode())
        self._events.write(line)
        self.tally.observe(time_s, event, fields)
        if event == "measured":
            self._measured.append(cast("Mapping[str, float | None]", fields["means"]))
        if event == "evaluated":
            self._measure(time_s, fields)
        if event in ("round_closed", "stopped"):
            self._events.flush()
            os.fsync(self._events.fileno())

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
        self._metrics.write(text.getvalue())
        self._metrics.flush()
        self.evaluations.append(row)

    @property
    def record_hash(self) -> str:
        """SHA-256 of `events.jsonl` so far."""
        return self._hash.hexdigest()

    def close(self) -> None:
        """Flush and close both files."""
        self._events.close()
        self._metrics.close()


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _integer(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"expected a count, got {value!r}")
    return value
