"""Which runs are there, and what came of them? One row per run, read from its small files only."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsim.errors import InputError
from fedsim.experiment.load import read_json, reading
from fedsim.experiment.record import EVENTS, MANIFEST, METRICS, SUMMARY


@dataclass(frozen=True, slots=True)
class Overview:
    """The figures of one run.

    Args:
        directory: Where it lies.
        name: Of the scenario.
        method: Which.
        seed: Of the run.
        executor: ``stub`` where nothing was trained.
        state: Why it stopped; ``not ended`` where it is at work or was killed.
        versions: How many were made, as far as they were measured.
        virtual_s: Virtual time of the last line, or of the last evaluation.
        bytes_moved: Both ways.
        first_loss: Of the base model.
        last_loss: Of the last version measured.
    """

    directory: str
    name: str
    method: str
    seed: int | None
    executor: str
    state: str
    versions: int | None
    virtual_s: float | None
    bytes_moved: int | None
    first_loss: float | None
    last_loss: float | None


def find_runs(parent: Path) -> list[Overview]:
    """List the runs in a folder, or the run that the folder is, by name.

    Raises:
        InputError: If the folder is not there.
    """
    if not parent.is_dir():
        raise InputError(f"{parent}: no such folder; expected one that holds runs")
    if (parent / MANIFEST).is_file():
        return [overview(parent)]
    return [
        overview(path)
        for path in sorted(parent.iterdir())
        if (path / MANIFEST).is_file() and (path / EVENTS).is_file()
    ]


def overview(directory: Path) -> Overview:
    """Read the figures of one run; what is damaged in it is told in its state."""
    try:
        with reading(directory):
            return _overview(directory)
    except InputError as error:
        return Overview(
            str(directory), directory.name, "", None, "", str(error), None, None, None, None, None
        )


def _overview(directory: Path) -> Overview:
    manifest = read_json(directory / MANIFEST)
    rows = _metrics(directory / METRICS)
    summary = read_json(directory / SUMMARY) if (directory / SUMMARY).is_file() else {}
    last: dict[str, Any] = rows[-1] if rows else {}
    moved = summary if "bytes_down" in summary else last
    return Overview(
        directory=str(directory),
        name=str(manifest.get("scenario", {}).get("name", directory.name)),
        method=str(manifest.get("method", "")),
        seed=_whole(manifest.get("seed")),
        executor=str(manifest.get("executor", "")),
        state=str(summary.get("reason", "not ended")),
        versions=_whole(last.get("version")),
        virtual_s=_number(summary.get("virtual_s", last.get("time_s"))),
        bytes_moved=(_whole(moved.get("bytes_down")) or 0) + (_whole(moved.get("bytes_up")) or 0),
        first_loss=_number(rows[0].get("loss")) if rows else None,
        last_loss=_number(last.get("loss")),
    )


def as_json(runs: Sequence[Overview]) -> str:
    """Return a JSON list for programs."""
    return json.dumps([{name: getattr(run, name) for name in run.__slots__} for run in runs], indent=2)


def _metrics(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _whole(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)
