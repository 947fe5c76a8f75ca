"""Which devices keep the same hours? A large fleet is drawn from few templates, so few timetables serve many.

Whoever asks about the whole fleet asks once per timetable; whoever asks about one device gets a plain number,
without a NumPy call.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Intervals:
    """Online intervals of all devices; device i follows row ``row[i]``, which others may share.

    Args:
        offsets: Row k lies at ``offsets[k]:offsets[k + 1]`` of the interval arrays.
        starts_s: Beginnings, sorted within a row.
        ends_s: Ends.
        row: Per device.
        period_s: Per device; infinity where the intervals do not begin again.
        phase_s: Per device; the row is read this much later.
    """

    offsets: np.ndarray
    starts_s: np.ndarray
    ends_s: np.ndarray
    row: np.ndarray
    period_s: np.ndarray
    phase_s: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Timetables:
    """The distinct timetables of a fleet.

    Args:
        intervals: Of all devices.
        first: The first device of each timetable, ascending, int64 (timetables,).
        of_device: Timetable of each device, int32 (devices,).
    """

    intervals: Intervals
    first: np.ndarray = field(init=False)
    of_device: np.ndarray = field(init=False)
    _views: tuple["memoryview[float]", ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Find equal timetables, and lay views for single numbers over the arrays."""
        rows = self.intervals
        first, of_device = _distinct((rows.row, rows.period_s, rows.phase_s))
        object.__setattr__(self, "first", first)
        object.__setattr__(self, "of_device", of_device)
        columns = (rows.row, rows.period_s, rows.phase_s, rows.offsets, rows.starts_s, rows.ends_s)
        object.__setattr__(self, "_views", tuple(np.ascontiguousarray(column).data for column in columns))

    def is_online(self, device: int, t_s: float) -> bool:
        """Say whether one device is online at this instant."""
        row, period_s, phase_s, offsets, starts_s, ends_s = self._views
        own, period = int(row[device]), period_s[device]
        shifted = t_s + phase_s[device]
        position = shifted % period if math.isfinite(period) else shifted
        low = int(offsets[own])
        after = bisect_right(starts_s, position, low, int(offsets[own + 1]))
        return after > low and position < ends_s[after - 1]

    def online(self, t_s: float) -> np.ndarray:
        """Return the sorted indices of all devices that are online at this instant."""
        there = is_there(self.intervals, t_s, self.first)
        return np.flatnonzero(there[self.of_device])


def _distinct(columns: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the first place of each distinct row, ascending, and which of them each row equals."""
    order = np.lexsort(columns)  # stable, so that equal rows stay in their order
    begins = np.zeros(len(order), dtype=np.bool_)
    begins[:1] = True
    for column in columns:
        ordered = column[order]
        begins[1:] |= ordered[1:] != ordered[:-1]
    first = order[begins]
    by_place = np.argsort(first)
    rank = np.empty(len(first), dtype=np.int32)
    rank[by_place] = np.arange(len(first), dtype=np.int32)
    of_row = np.empty(len(order), dtype=np.int32)
    of_row[order] = rank[np.cumsum(begins) - 1]
    return first[by_place], of_row


def is_there(rows: Intervals, t_s: float, chosen: np.ndarray) -> np.ndarray:
    """Say for each of the chosen devices whether it is online at this instant, bool (chosen,)."""
    if len(rows.ends_s) == 0:
        return np.zeros(len(chosen), dtype=np.bool_)
    position, after = search(rows, t_s, chosen)
    begun = after > rows.offsets[rows.row[chosen]]
    return np.asarray(begun & (position < rows.ends_s[after - 1]))


def time_to_next_start(rows: Intervals, t_s: float, chosen: np.ndarray) -> np.ndarray:
    """Time to the next interval that begins from absence, per chosen device; infinity if there is none."""
    position, after = search(rows, t_s, chosen)
    low, high = rows.offsets[rows.row[chosen]], rows.offsets[rows.row[chosen] + 1]
    last = len(rows.starts_s) - 1
    first_start = rows.starts_s[np.minimum(low, last)]
    period = rows.period_s[chosen]
    joins = (high > low) & (first_start == 0.0) & (rows.ends_s[np.minimum(high - 1, last)] == period)
    again = np.where(joins, low + 1, low)
    wraps = np.isfinite(period) & (again < high)
    later = np.where(wraps, period - position + rows.starts_s[np.minimum(again, last)], np.inf)
    ahead: np.ndarray = np.where(after < high, rows.starts_s[np.minimum(after, last)] - position, later)
    return ahead


def search(rows: Intervals, t_s: float, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each device's position in its period, and the place of its first later start.

    A binary search in all rows at once: as many steps as the longest row needs, exact in time.
    """
    period, shifted = rows.period_s[chosen], t_s + rows.phase_s[chosen]
    position = np.where(np.isfinite(period), np.mod(shifted, period), shifted)
    low, high = rows.offsets[rows.row[chosen]], rows.offsets[rows.row[chosen] + 1]
    last = max(len(rows.starts_s) - 1, 0)
    while (low < high).any():
        middle = (low + high) // 2
        begun = (low < high) & (rows.starts_s[np.minimum(middle, last)] <= position)
        high = np.where(begun, high, np.minimum(middle, high))
        low = np.where(begun, middle + 1, low)
    return position, low
