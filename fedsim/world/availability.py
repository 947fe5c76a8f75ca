"""When can a device take part? Online intervals of one device, asked in any order.

It does not know why the device is away: unplugged, on a metered network or in use, all is in the intervals.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fedsim.errors import TraceError

_set = object.__setattr__


@dataclass(frozen=True, slots=True, eq=False)
class Availability:
    """Half-open online intervals ``[start, end)``, sorted and apart.

    An interval that touches the end of the period joins the one that begins at 0.

    Args:
        starts_s: Beginnings.
        ends_s: Ends; infinity in the last place means for ever.
        period_s: Length after which the intervals begin again; without it the device is gone after the last.
        phase_s: The intervals are read this much later than the query says.
    """

    starts_s: np.ndarray
    ends_s: np.ndarray
    period_s: float | None = None
    phase_s: float = 0.0
    # The same arrays, quicker to search for a single instant.
    _starts: "memoryview[float]" = field(init=False, repr=False)
    _ends: "memoryview[float]" = field(init=False, repr=False)

    def __post_init__(self) -> None:
        starts, ends = self.starts_s, self.ends_s
        ordered = starts.shape == ends.shape and bool(
            (starts < ends).all() and (starts[1:] > ends[:-1]).all()
        )
        if not ordered:
            raise TraceError("availability: expected sorted intervals that neither overlap nor touch")
        object.__setattr__(self, "_starts", np.ascontiguousarray(starts, dtype=np.float64).data)
        object.__setattr__(self, "_ends", np.ascontiguousarray(ends, dtype=np.float64).data)
        if self.period_s is None:
            return
        if not self.period_s > 0 or (len(ends) and (starts[0] < 0 or ends[-1] > self.period_s)):
            raise TraceError(f"availability: expected intervals inside the period of {self.period_s} s")
        object.__setattr__(self, "phase_s", self.phase_s % self.period_s)

    @classmethod
    def of(
        cls, intervals: Sequence[tuple[float, float]], period_s: float | None = None, phase_s: float = 0.0
    ) -> "Availability":
        """Return the availability with these intervals, sorted and joined where they touch."""
        array = np.array(sorted(intervals), dtype=np.float64).reshape(-1, 2)
        starts, ends = join_intervals(array[:, 0], array[:, 1])
        return cls(starts, ends, period_s, phase_s)

    @classmethod
    def always(cls) -> "Availability":
        """Return the availability of a device that never leaves."""
        return cls(np.array([0.0]), np.array([math.inf]), None, 0.0)

    @classmethod
    def never(cls) -> "Availability":
        """Return the availability of a device that never comes."""
        return cls(np.empty(0), np.empty(0), None, 0.0)

    def at_phase(self, phase_s: float) -> "Availability":
        """Return the same intervals, read so much later than the query says."""
        view = object.__new__(Availability)
        _set(view, "starts_s", self.starts_s)
        _set(view, "ends_s", self.ends_s)
        _set(view, "period_s", self.period_s)
        _set(view, "_starts", self._starts)
        _set(view, "_ends", self._ends)
        _set(view, "phase_s", phase_s if self.period_s is None else phase_s % self.period_s)
        return view

    def is_online(self, t_s: float) -> bool:
        """Say whether the device is online at this instant."""
        position = self._position(t_s)
        k = bisect_right(self._starts, position) - 1
        return k >= 0 and position < self._ends[k]

    def next_departure_s(self, t_s: float) -> float:
        """Return the earliest instant from `t_s` on at which the device is away; infinity if never."""
        position = self._position(t_s)
        k = bisect_right(self._starts, position) - 1
        if k < 0 or position >= self._ends[k]:
            return t_s
        ahead = self._ends[k] - position
        if k == len(self._ends) - 1 and self._joins():
            if k == 0:
                return math.inf
            ahead += self._ends[0]
        return self._settle(t_s + ahead, online=False)

    def next_return_s(self, t_s: float) -> float:
        """Return the earliest instant from `t_s` on at which the device is online; infinity if never."""
        if self.is_online(t_s):
            return t_s
        position = self._position(t_s)
        k = bisect_right(self._starts, position)
        if k < len(self._starts):
            return self._settle(t_s + (self._starts[k] - position), online=True)
        if self.period_s is None or len(self._starts) == 0:
            return math.inf
        return self._settle(t_s + (self.period_s - position + self._starts[0]), online=True)

    def _position(self, t_s: float) -> float:
        shifted = t_s + self.phase_s
        return shifted if self.period_s is None else shifted % self.period_s

    def _joins(self) -> bool:
        return self.period_s is not None and self._starts[0] == 0.0 and self._ends[-1] == self.period_s

    def _settle(self, t_s: float, *, online: bool) -> float:
        """Step over the last bits that folding into the period rounds away."""
        while self.is_online(t_s) != online and math.isfinite(t_s):
            t_s = math.nextafter(t_s, math.inf)
        return t_s


def join_intervals(
    starts_s: np.ndarray, ends_s: np.ndarray, gap_s: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Join sorted intervals that overlap, touch, or lie at most `gap_s` apart."""
    if len(starts_s) == 0:
        return starts_s, ends_s
    reach = np.maximum.accumulate(ends_s)
    first = np.concatenate(([True], starts_s[1:] > reach[:-1] + gap_s))
    last = np.concatenate((first[1:], [True]))
    return starts_s[first], reach[last]
