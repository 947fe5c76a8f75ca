"""What does one run of a comparison say? Its figures, its learning curve, and whom it asked."""

import csv
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from fedsim.experiment.load import read_events, read_json
from fedsim.experiment.record import EVENTS, MANIFEST, METRICS, SUMMARY

QUALITIES = ("loss", "token_accuracy", "rouge_l")
PHASES = ("downloaded", "trained", "uploaded")


@dataclass(frozen=True, slots=True)
class Curve:
    """What was measured of the global adapter, in the order of its versions.

    Args:
        time_s: Virtual time of each evaluation.
        moved_bytes: Bytes on both links until then.
        values: Quality -> value at each evaluation, None where it was not measured.
    """

    time_s: tuple[float, ...]
    moved_bytes: tuple[float, ...]
    values: Mapping[str, tuple[float | None, ...]]

    def axis(self, name: str) -> tuple[float, ...]:
        """``time`` or ``bytes``."""
        return self.time_s if name == "time" else self.moved_bytes

    def at(self, quality: str, axis: str, where: float) -> float | None:
        """Value at a time or number of bytes, on the straight line between the evaluations around it."""
        points = self._points(quality, axis)
        if not points or where < points[0][0]:
            return None
        places, values = zip(*points, strict=True)
        return float(np.interp(where, places, values))

    def final(self, quality: str) -> float | None:
        """Value of the last evaluation."""
        return self.values[quality][-1] if self.values[quality] else None

    def reached(self, quality: str, target: float, axis: str) -> float | None:
        """Where a falling quality first reaches a target, on the line between evaluations; None if never."""
        points = self._points(quality, axis)
        for (before, high), (after, low) in zip(points[:1] + points, points, strict=False):
            if low <= target:
                share = 1.0 if high <= low else (high - target) / (high - low)
                return before + max(0.0, share) * (after - before)
        return None

    def _points(self, quality: str, axis: str) -> list[tuple[float, float]]:
        pairs = zip(self.axis(axis), self.values[quality], strict=True)
        return [(place, value) for place, value in pairs if value is not None]


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What one run says.

    Args:
        manifest: Of the run.
        curve: Of its evaluations.
        asked: Pairs of version and client, one per assignment.
        figures: Name -> value, None where it was not measured.
    """

    manifest: Mapping[str, Any]
    curve: Curve
    asked: frozenset[tuple[int, int]]
    figures: Mapping[str, float | None]


@dataclass(slots=True)
class _Tally:
    """Sums over the lines of a record."""

    asked: set[tuple[int, int]] = field(default_factory=set)
    phase_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    measured: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    declined: int = 0
    wasted_bytes: int = 0

    def observe(self, line: Mapping[str, Any]) -> None:
        """Count one line."""
        event = line["event"]
        if event == "dispatched":
            self.asked.add((int(line["version"]), int(line["client"])))
        elif event in PHASES:
            self.phase_s[event] += float(line["duration_s"])
            self.wasted_bytes += line.get("unused_bytes", 0)
        elif event == "settled":
            self.wasted_bytes += _wasted(line)
        elif event == "declined":
            self.declined += 1
        elif event == "measured":
            for name, value in line["means"].items():
                if value is not None:
                    self.measured[name].append(float(value))


def _wasted(line: Mapping[str, Any]) -> int:
    """Bytes of an assignment that came to nothing; none of one that was under way at the end."""
    if line["outcome"] == "aggregated" or line["reason"] == "end of run":
        return 0
    return int(line["bytes_down"]) + int(line["bytes_up"])


def read_outcome(directory: Path) -> RunOutcome:
    """Read what a finished run says.

    Args:
        directory: Of its record.

    Raises:
        InputError: If a file of the record is missing or damaged.
    """
    summary = read_json(directory / SUMMARY)
    tally = _Tally()
    for line in read_events(directory / EVENTS):
        tally.observe(line)
    curve = _read_curve(directory / METRICS)
    return RunOutcome(
        manifest=read_json(directory / MANIFEST),
        curve=curve,
        asked=frozenset(tally.asked),
        figures={
            **{f"{quality}_final": curve.final(quality) for quality in QUALITIES},
            **_costs(summary, tally),
            **{name: fmean(values) for name, values in tally.measured.items()},
        },
    )


def _costs(summary: Mapping[str, Any], tally: _Tally) -> dict[str, float | None]:
    """Return what a run took, and what was lost on the way."""
    outcomes: Mapping[str, int] = summary["outcomes"]
    used = summary.get("utilisation") or {}
    settled = sum(outcomes.values())
    lost = sum(count for outcome, count in outcomes.items() if outcome.startswith("dropped"))
    shares = {
        "dropped_share": lost,
        "timed_out_share": outcomes.get("timed_out", 0),
        "late_share": outcomes.get("late", 0) + outcomes.get("stale", 0),
        "aggregated_share": outcomes.get("aggregated", 0),
    }
    return {
        "virtual_s": summary["virtual_s"],
        "rounds": summary["rounds"],
        "bytes_down": summary["bytes_down"],
        "bytes_up": summary["bytes_up"],
        "bytes_moved": summary["bytes_down"] + summary["bytes_up"],
        "device_s": math.fsum(tally.phase_s.values()),
        "device_training_s": tally.phase_s["trained"],
        "energy_j": (summary.get("energy_j") or {}).get("total"),
        "memory_bytes": used.get("mean_memory_bytes"),
        "bytes_used_share": (used.get("download_bytes") or {}).get("mean"),
        "memory_used_share": (used.get("memory_bytes") or {}).get("mean"),
        "seconds_used_share": (used.get("seconds") or {}).get("mean"),
        "assignments": settled,
        "declined": tally.declined,
        "wasted_bytes": tally.wasted_bytes,
        "updates_per_hour": outcomes.get("aggregated", 0) / (summary["virtual_s"] / 3600.0)
        if summary["virtual_s"]
        else None,
        **{name: count / settled if settled else None for name, count in shares.items()},
    }


def _read_curve(path: Path) -> Curve:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return Curve(
        time_s=tuple(float(row["time_s"]) for row in rows),
        moved_bytes=tuple(float(row["bytes_down"]) + float(row["bytes_up"]) for row in rows),
        values={
            quality: tuple(float(row[quality]) if row.get(quality) else None for row in rows)
            for quality in QUALITIES
        },
    )


def equal_end(curves: Sequence[Curve], axis: str) -> float | None:
    """Smallest last place of several curves: so far, all of them can be compared."""
    ends = [curve.axis(axis)[-1] for curve in curves if curve.axis(axis)]
    return min(ends) if ends else None
