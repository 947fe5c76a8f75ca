"""How does a script read a run? `load_run(directory)` gives the record as pandas frames.

The record is read line by line, so it may be larger than memory would like; a torn last line, which a killed
run leaves, is dropped. Nothing here imports torch.
"""

import csv
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from fedsim.errors import FedsimError, InputError
from fedsim.experiment.record import EVENTS, MANIFEST, METRICS, SUMMARY
from fedsim.experiment.tabulate import Frames, tabulate
from fedsim.world.cost import Prices

TABLES = "tables"

_MISSHAPEN = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    UnicodeError,
)
"""What Python says of plain data that are not shaped as expected."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong over the shape of a file's content into one line; fedsim's own errors pass.

    Args:
        path: Of the file, or of the run.

    Raises:
        InputError: If something in it is not as fedsim writes it.
    """
    try:
        yield
    except FedsimError:
        raise
    except OSError as error:
        where = error.filename or path
        raise InputError(f"{where}: cannot be read: {error.strerror or error}; restore it") from error
    except _MISSHAPEN as error:
        words = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"{path}: damaged: it holds what fedsim does not write ({words}); restore it from a copy"
        ) from error


def refuse_links(directory: Path) -> None:
    """Refuse to write into a run that would lead elsewhere: a run keeps its files in its own folder.

    Raises:
        InputError: If a file or folder of it is a link.
    """
    for folder, folders, files in os.walk(directory):
        for name in (*folders, *files):
            if Path(folder, name).is_symlink():
                raise InputError(
                    f"{Path(folder, name)}: a link; a run keeps its files in its own folder, so copy what it "
                    "points to, or remove it"
                )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Run(Frames):
    """The record of one run: its tables, and where they come from.

    Args:
        directory: Where it lies.
        manifest: As written before the run began.
        summary: As written at its end; None while it runs, and where it was killed.
        prices: Of one assignment, as far as budgets are concerned; None in old records.
    """

    directory: Path
    manifest: Mapping[str, Any]
    summary: Mapping[str, Any] | None
    prices: Prices | None

    @property
    def is_stub(self) -> bool:
        """Whether nothing was really trained."""
        return self.manifest.get("executor") == "stub"

    @property
    def layers(self) -> list[str]:
        """Names of the adapted modules, in the order of the plans."""
        return list(self.manifest.get("layers", []))

    @property
    def frames(self) -> dict[str, pd.DataFrame]:
        """Every table by its name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, pd.DataFrame)}


def refuse_thin(directory: Path, manifest: Mapping[str, Any]) -> None:
    """Refuse a record that holds no assignments.

    Raises:
        InputError: If the scenario of the run keeps lines of versions alone.
    """
    scenario = manifest.get("scenario")
    record = scenario.get("record") if isinstance(scenario, dict) else None
    if isinstance(record, dict) and record.get("lines", "all") != "all":
        raise InputError(
            f"{directory}: the record holds lines of versions alone (record.lines: {record['lines']}), so "
            "nothing can be said of assignments; see summary.json, or run with record.lines: all"
        )


def load_run(path: Path | str) -> Run:
    """Read the record of a run.

    Args:
        path: The directory of the run; it may still be running.

    Raises:
        InputError: If it is not the directory of a run, or a file of it is damaged.
    """
    directory = Path(path)
    with reading(directory):
        return _load(directory)


def _load(directory: Path) -> Run:
    manifest = read_json(directory / MANIFEST)
    refuse_thin(directory, manifest)
    prices = prices_of(manifest)
    frames = tabulate(read_events(directory / EVENTS), prices)
    summary_path = directory / SUMMARY
    return Run(
        directory=directory,
        manifest=manifest,
        summary=read_json(summary_path) if summary_path.exists() else None,
        prices=prices,
        **{field.name: getattr(frames, field.name) for field in fields(Frames)}
        | {"evaluations": _evaluations(directory / METRICS, frames)},
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: If it is not there, or not an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror}; expected the folder of a run, with {MANIFEST} in it"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected JSON, found something else ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, found a {type(content).__name__}")
    return content


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """Read the record line by line; a torn last line is dropped.

    Yields:
        One object per line, with at least ``time_s`` and ``event``.

    Raises:
        InputError: If a line before the last is damaged.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return  # the run was killed, or is at work, while it wrote this line
                yield parse_event(path, number, line)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected the record of a run") from error


def parse_event(path: Path, number: int, line: bytes) -> dict[str, Any]:
    """Read one line of the record.

    Args:
        path: Of the record, for the message.
        number: Of the line, from 1.
        line: With its end.

    Raises:
        InputError: If it is damaged.
    """
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path}:{number}: expected one JSON object per line, found a damaged one"
        ) from error
    if not isinstance(content, dict) or not {"time_s", "event"} <= set(content):
        raise InputError(f"{path}:{number}: expected an object with time_s and event")
    return content


def write_tables(
    run: Run, directory: Path, formats: Sequence[Literal["csv", "parquet"]] = ("csv", "parquet")
) -> list[Path]:
    """Write every table of a run that has rows.

    Args:
        run: As loaded.
        directory: Made if it is not there.
        formats: Which.

    Returns:
        The files.
    """
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name, frame in run.frames.items():
        if frame.empty:
            continue
        if "parquet" in formats:
            written.append(directory / f"{name}.parquet")
            frame.to_parquet(written[-1], index=False)
        if "csv" in formats:
            written.append(directory / f"{name}.csv")
            frame.to_csv(written[-1], index=False, quoting=csv.QUOTE_MINIMAL)
    return written


def _evaluations(path: Path, frames: Frames) -> pd.DataFrame:
    """Take the table of metrics, which also has counts; without it, what the record says."""
    try:
        _refuse_repeated_columns(path)
        table = pd.read_csv(path)
    except (OSError, csv.Error, pd.errors.ParserError, pd.errors.EmptyDataError):
        return frames.evaluations
    return table if len(table) >= len(frames.evaluations) else frames.evaluations


def _refuse_repeated_columns(path: Path) -> None:
    """Pandas would give the second column of a name another name."""
    with path.open(encoding="utf-8", newline="") as file:
        header = next(csv.reader(file), [])
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise InputError(
            f"{path}:1: expected every column once, found {twice[0][:40]!r} {header.count(twice[0])} times; "
            "restore it from a copy"
        )


def prices_of(manifest: Mapping[str, Any]) -> Prices | None:
    """Rebuild the prices that a manifest tells; None in old ones."""
    told = manifest.get("prices")
    if told is None:
        return None
    values: dict[str, Any] = {
        name: np.asarray(value) if isinstance(value, list) else value for name, value in told.items()
    }
    return Prices(layers=tuple(manifest["layers"]), **values)
