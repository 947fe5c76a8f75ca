"""How does one quantity of the world change over time? A step function that answers and remembers nothing.

It does not know what it measures: bits per second, bytes of memory and FLOP per second are all step traces.
There is no cursor, so the answer never depends on who asked before.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fedsim.errors import TraceError

_NOT_SUMMED = np.empty(0)
_set = object.__setattr__


@dataclass(frozen=True, slots=True, eq=False)
class StepTrace:
    """A piecewise-constant, non-negative function of time.

    Shifted and scaled views share the arrays, so one measured trace serves a whole fleet.

    Args:
        times_s: Instants at which a new value begins; the first is 0, strictly increasing.
        values: The value from each instant on.
        period_s: Length after which the trace begins again; without it the last value holds for ever.
        offset_s: The trace is read this much later than the query says.
        scale: Every value is multiplied by this.
        prefix: Integral from 0 to each instant, unscaled; computed when it is not given.
    """

    times_s: np.ndarray
    values: np.ndarray
    period_s: float | None = None
    offset_s: float = 0.0
    scale: float = 1.0
    prefix: np.ndarray = field(default_factory=lambda: _NOT_SUMMED, repr=False)
    # The same arrays as Python sees them best: a single float of a memoryview costs half of one of an array,
    # and a binary search a sixth.
    _times: "memoryview[float]" = field(init=False, repr=False)
    _values: "memoryview[float]" = field(init=False, repr=False)
    _prefix: "memoryview[float]" = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.prefix.size == 0:
            self._adopt_arrays()
        for name in ("times", "values", "prefix"):
            array = self.times_s if name == "times" else getattr(self, name)
            _set(self, f"_{name}", array.data)
        _set(self, "offset_s", self._folded(self.offset_s, self.scale))

    def _folded(self, offset_s: float, scale: float) -> float:
        """Check scale and offset, and fold the offset into the period."""
        if not (0 <= scale < math.inf and -math.inf < offset_s < math.inf):
            raise TraceError(
                f"step trace: expected a finite offset and a scale >= 0, got {offset_s} and {scale}"
            )
        return offset_s if self.period_s is None else offset_s % self.period_s

    def _adopt_arrays(self) -> None:
        """Check the arrays, join equal neighbours so that every instant is a real change, and sum them up."""
        times = np.asarray(self.times_s, dtype=np.float64)
        values = np.asarray(self.values, dtype=np.float64)
        _check_steps(times, values, self.period_s)
        real = np.concatenate(([True], np.diff(values) != 0))
        times, values = times[real], values[real]
        edges = times if self.period_s is None else np.append(times, self.period_s)
        prefix = np.concatenate(([0.0], np.cumsum(np.diff(edges) * values[: len(edges) - 1])))
        for name, array in (("times_s", times), ("values", values), ("prefix", prefix)):
            array.flags.writeable = False
            _set(self, name, array)

    @classmethod
    def constant(cls, value: float) -> "StepTrace":
        """Return the trace that always has this value."""
        return cls(np.zeros(1), np.array([value]))

    @classmethod
    def of(cls, steps: Sequence[tuple[float, float]], period_s: float | None = None) -> "StepTrace":
        """Return the trace with these (instant, value) steps, for tests and small examples."""
        times, values = zip(*steps, strict=True)
        return cls(np.array(times), np.array(values), period_s)

    def shifted(self, offset_s: float) -> "StepTrace":
        """Return a view that is read this much later: ``shifted(d).value(t) == value(t + d)``."""
        return self._view(self.offset_s + offset_s, self.scale)

    def scaled(self, factor: float) -> "StepTrace":
        """Return a view whose values are multiplied by this factor."""
        return self._view(self.offset_s, self.scale * factor)

    def seen(self, offset_s: float, factor: float) -> "StepTrace":
        """Return a view that is shifted and scaled."""
        return self._view(self.offset_s + offset_s, self.scale * factor)

    def _view(self, offset_s: float, scale: float) -> "StepTrace":
        """Share everything but offset and scale; devices are made by the million, arrays are checked once."""
        view = object.__new__(StepTrace)
        _set(view, "times_s", self.times_s)
        _set(view, "values", self.values)
        _set(view, "period_s", self.period_s)
        _set(view, "prefix", self.prefix)
        _set(view, "_times", self._times)
        _set(view, "_values", self._values)
        _set(view, "_prefix", self._prefix)
        _set(view, "offset_s", self._folded(offset_s, scale))
        _set(view, "scale", scale)
        return view

    def value(self, t_s: float) -> float:
        """Return the value at this instant."""
        if len(self._values) == 1:
            return self._values[0] * self.scale
        return self._values[self._segment(self._position(t_s))] * self.scale

    def next_change_s(self, t_s: float) -> float:
        """Return the earliest instant after `t_s` at which the value differs; infinity if there is none."""
        if len(self._values) == 1 or self.scale == 0:
            return math.inf
        position = self._position(t_s)
        k = self._segment(position) + 1
        if k < len(self._times):
            ahead = self._times[k] - position
        elif self.period_s is None:
            return math.inf
        else:
            same = self._values[0] == self._values[-1]
            ahead = self.period_s - position + (self._times[1] if same else 0.0)
        change = max(t_s + ahead, math.nextafter(t_s, math.inf))
        now = self.value(t_s)
        # Adding the offset and folding round to the nearest float; step over the last bits so that the
        # instant returned really has the new value and a caller that walks from change to change gets on.
        while self.value(change) == now:
            change = math.nextafter(change, math.inf)
        return change

    def integral(self, start_s: float, end_s: float) -> float:
        """Return the integral from `start_s` to `end_s`, which is not before the start."""
        if end_s <= start_s:
            return 0.0
        position, rate, room_s = self._here(start_s)
        length_s = end_s - start_s
        if length_s <= room_s:
            return length_s * rate * self.scale
        beyond = self._summed(position + length_s) - self._summed(position + room_s)
        return (room_s * rate + max(0.0, beyond)) * self.scale

    def inverse_integral(self, start_s: float, amount: float) -> float:
        """Return the earliest ``t >= start_s`` with ``integral(start_s, t) == amount``; infinity if never.

        The root is exact: prefix sums and a binary search inside one period, whole periods by division. What
        fits into the current step needs no sum at all, and all sums are relative to the period in which the
        start lies, so neither a small amount nor a start after many weeks loses accuracy.
        """
        if amount <= 0 or start_s == math.inf:
            return start_s
        if self.scale == 0 or amount == math.inf:
            return math.inf
        unscaled = amount / self.scale
        if len(self._values) == 1:
            return start_s + unscaled / self._values[0] if self._values[0] else math.inf
        position, rate, room_s = self._here(start_s)
        rest = unscaled - room_s * rate if rate else unscaled
        if rest <= 0:
            return start_s + unscaled / rate
        if room_s == math.inf:
            return math.inf
        target = self._summed(position + room_s) + rest
        return start_s + max(room_s, self._root(target) - position)

    def _here(self, t_s: float) -> tuple[float, float, float]:
        """Return the position inside the period, the unscaled value there, and how long it lasts."""
        position = self._position(t_s)
        after = bisect_right(self._times, position) or 1
        if after < len(self._times):
            edge = self._times[after]
        else:
            edge = math.inf if self.period_s is None else self.period_s
        return position, self._values[after - 1], edge - position

    def _position(self, t_s: float) -> float:
        shifted = t_s + self.offset_s
        return shifted if self.period_s is None else shifted % self.period_s

    def _segment(self, position: float) -> int:
        return (bisect_right(self._times, position) or 1) - 1

    def _summed(self, position: float) -> float:
        """Unscaled integral from 0 to a position that may lie beyond the period, or before 0."""
        whole = 0.0
        if self.period_s is not None:
            loops, position = divmod(position, self.period_s)
            whole = loops * self._prefix[-1]
        k = self._segment(position)
        return whole + (self._prefix[k] + (position - self._times[k]) * self._values[k])

    def _root(self, target: float) -> float:
        """Earliest position with this unscaled integral from 0."""
        if self.period_s is None:
            return self._root_in_one_pass(target)
        total = self._prefix[-1]
        if total <= 0:
            return math.inf
        # The target in (0, total] of its own pass: ending exactly with a pass belongs to that pass.
        loops = math.ceil(target / total) - 1
        rest = min(max(target - loops * total, 0.0), total)
        return loops * self.period_s + self._root_in_one_pass(rest)

    def _root_in_one_pass(self, target: float) -> float:
        k = max(1, bisect_left(self._prefix, target))
        k = min(k, len(self._values))
        rate = self._values[k - 1]
        if rate == 0:
            return math.inf
        return self._times[k - 1] + (target - self._prefix[k - 1]) / rate


def _check_steps(times: np.ndarray, values: np.ndarray, period_s: float | None) -> None:
    if times.ndim != 1 or times.shape != values.shape or times.size == 0:
        raise TraceError(
            f"step trace: expected as many instants as values, got {times.shape} and {values.shape}"
        )
    if not (np.isfinite(times).all() and np.isfinite(values).all() and (values >= 0).all()):
        raise TraceError("step trace: expected finite instants and finite values >= 0")
    if times[0] != 0 or (np.diff(times) <= 0).any():
        raise TraceError("step trace: expected strictly increasing instants that begin with 0")
    if period_s is not None and not (math.isfinite(period_s) and period_s > times[-1]):
        raise TraceError(f"step trace: expected a period after the last instant {times[-1]}, got {period_s}")
