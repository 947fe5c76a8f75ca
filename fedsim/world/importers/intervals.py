"""How do online intervals become rows? Sorted, joined, clipped, turned to local time, counted."""

from collections.abc import Iterable
from dataclasses import dataclass

from fedsim.world.importers.rows import Count, Items, OnlineRow

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Window:
    """What was observed of one device.

    Args:
        device_id: Its name.
        period_s: How long it was observed.
        shift_s: How much later the clock of the rows is than that of the intervals; intervals that reach
            beyond the end of the period come back at its beginning, as in a replay.
    """

    device_id: str
    period_s: float
    shift_s: float = 0.0


def online_rows(window: Window, intervals: Iterable[Interval], merge_gap_s: float) -> Items:
    """Yield the stays of one device, and what was changed.

    A device without any is kept by one row of zero length, so that its absence is a statement.
    """
    kept: list[Interval] = []
    for start_s, end_s in sorted(intervals):
        stop_s = min(end_s, window.period_s)
        if stop_s < end_s:
            yield Count("stays clipped at the end of their window")
        if stop_s <= start_s:
            yield Count("stays of zero length dropped")
        elif kept and start_s <= kept[-1][1] + merge_gap_s:
            yield _merging(kept[-1], start_s)
            kept[-1] = (kept[-1][0], max(kept[-1][1], stop_s))
        else:
            kept.append((start_s, stop_s))
    if not kept:
        yield Count("devices that are never online, kept by a row of zero length")
        yield OnlineRow(window.device_id, 0.0, 0.0)
        return
    for start_s, end_s in kept:
        yield from _shifted(window, start_s, end_s)


def _merging(before: Interval, start_s: float) -> Count:
    if start_s > before[1]:
        return Count("short absences merged into a stay")
    return Count("stays that touch or overlap merged")


def _shifted(window: Window, start_s: float, end_s: float) -> Items:
    """Move one stay onto the clock of the rows."""
    period_s = window.period_s
    begin_s = (start_s + window.shift_s) % period_s
    length_s = end_s - start_s
    if begin_s + length_s <= period_s:
        yield OnlineRow(window.device_id, begin_s, begin_s + length_s)
        return
    yield Count("stays split where the window begins again")
    yield OnlineRow(window.device_id, begin_s, period_s)
    yield OnlineRow(window.device_id, 0.0, begin_s + length_s - period_s)
