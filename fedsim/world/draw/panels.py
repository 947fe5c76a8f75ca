"""What belongs into a picture of a trace? Points and labels, the same for every back end."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from fedsim.world.formats.records import AvailabilityTable, BandwidthTable
from fedsim.world.statistics import DAY_S, AvailabilityStatistics, sampled_mbps, segments
from fedsim.world.trace import StepTrace

MAX_STRIPS = 60
MAX_TRACES = 6
MAX_POINTS = 2000


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """One curve; as steps, each value holds until the next point."""

    label: str
    x: np.ndarray
    y: np.ndarray
    steps: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Strips:
    """Bars in rows: bar k lies in ``row[k]`` from ``start[k]`` to ``end[k]``."""

    row: np.ndarray
    start: np.ndarray
    end: np.ndarray
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """One pair of axes."""

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...] = ()
    strips: Strips | None = None
    x_scale: Literal["linear", "log"] = "linear"
    y_scale: Literal["linear", "log"] = "linear"
    x_range: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """Panels, one above the other."""

    title: str
    panels: tuple[Panel, ...] = field(default_factory=tuple)


Named = tuple[str, AvailabilityTable, AvailabilityStatistics]


def availability_picture(first: Named, second: Named | None = None) -> Picture:
    """Lay out a strip chart of the first trace, its daily curve and the lengths of stays.

    Args:
        first: Label, intervals and their statistics.
        second: Another trace whose curves are laid over those of the first.
    """
    both = [first] if second is None else [first, second]
    return Picture(
        first[0] if second is None else f"{first[0]} and {second[0]}",
        (
            Panel(
                f"{first[0]}: online",
                "days, local time",
                "device",
                strips=_strips(first[1]),
                x_range=(0.0, float(first[1].period_s / DAY_S)),
            ),
            Panel(
                "share online by hour",
                "local hour",
                "share online",
                lines=tuple(_daily(name, found) for name, _, found in both),
                x_range=(0.0, 24.0),
            ),
            Panel(
                "length of a stay",
                "minutes",
                "share of stays that are at most so long",
                lines=tuple(_stays(name, table) for name, table, _ in both),
                x_scale="log",
            ),
        ),
    )


def _strips(table: AvailabilityTable) -> Strips:
    """Bars of some devices, evenly picked and sorted by how long they are online."""
    num = len(table.ids)
    row = np.repeat(np.arange(num), np.diff(table.offsets))
    online_s = np.bincount(row, weights=table.ends_s - table.starts_s, minlength=num)
    by_time = np.argsort(online_s, kind="stable")
    picked = by_time[np.linspace(0, num - 1, min(num, MAX_STRIPS)).round().astype(int)]
    place = np.full(num, -1)
    place[picked] = np.arange(len(picked))
    shown = place[row] >= 0
    return Strips(
        place[row][shown],
        table.starts_s[shown] / DAY_S,
        table.ends_s[shown] / DAY_S,
        tuple(table.ids[k] for k in picked),
    )


def _daily(name: str, found: AvailabilityStatistics) -> Line:
    shares = np.array(found.hourly_share)
    return Line(name, np.arange(25.0), np.append(shares, shares[-1]), steps=True)


def _stays(name: str, table: AvailabilityTable) -> Line:
    return _cumulative(name, (table.ends_s - table.starts_s) / 60.0)


def _cumulative(name: str, values: np.ndarray, weights: np.ndarray | None = None) -> Line:
    """Share of the weight at or below each value, thinned to what a picture can show."""
    order = np.argsort(values)
    weight = np.ones(len(values)) if weights is None else weights[order]
    reached = np.cumsum(weight) / weight.sum() if len(values) else np.empty(0)
    shown = np.unique(np.linspace(0, max(len(values) - 1, 0), MAX_POINTS).round().astype(int))[: len(values)]
    return Line(name, values[order][shown], reached[shown], steps=True)


def bandwidth_picture(
    first: tuple[str, BandwidthTable], second: tuple[str, BandwidthTable] | None = None
) -> Picture:
    """Lay out the rate over time of some traces, and the distribution of the rate over all.

    Args:
        first: Label and library.
        second: Another library whose distribution is laid over that of the first.
    """
    both = [first] if second is None else [first, second]
    picked = first[1].traces[:: max(1, -(-len(first[1].traces) // MAX_TRACES))]
    distributions = []
    for name, table in both:
        distributions.append(_distribution(f"{name} down", [trace.down for trace in table.traces]))
        ups = [trace.up for trace in table.traces if trace.up is not None]
        if ups and second is None:
            distributions.append(_distribution(f"{name} up", ups))
    return Picture(
        first[0] if second is None else f"{first[0]} and {second[0]}",
        (
            Panel(
                f"{first[0]}: rate over time",
                "minutes",
                "Mbit/s down",
                lines=tuple(_over_time(trace.trace_id, trace.down) for trace in picked),
            ),
            Panel(
                "distribution of the rate",
                "Mbit/s",
                "share of the time at most so fast",
                lines=tuple(distributions),
                x_scale="log",
            ),
        ),
    )


def _over_time(name: str, trace: StepTrace) -> Line:
    end = trace.period_s if trace.period_s is not None else float(trace.times_s[-1])
    times = np.linspace(0.0, end, MAX_POINTS, endpoint=False)
    shown = trace.times_s if len(trace.times_s) <= MAX_POINTS else times
    return Line(name, shown / 60.0, sampled_mbps(trace, shown), steps=True)


def _distribution(name: str, traces: Sequence[StepTrace]) -> Line:
    parts = [segments(trace) for trace in traces]
    mbps = np.concatenate([rate for rate, _ in parts])
    # An outage has no place on a logarithmic axis; it stands at its left edge.
    return _cumulative(name, np.maximum(mbps, 1e-3), np.concatenate([length for _, length in parts]))
