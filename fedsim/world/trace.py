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

_set = object.__setattr__


@dataclass(frozen=True, slots=True, eq=False)
class _Steps:
    """The arrays of a trace, checked and summed up once; all its views share them.

    Args:
        times_s: Instants at which a new value begins.
        values: The value from each instant on.
        period_s: Length after which the trace begins again, or None.
        prefix: Integral from 0 to each instant, and to the end of the period.
    """

    times_s: np.ndarray
    values: np.ndarray
    period_s: float | None
    prefix: np.ndarray
    # The same arrays as Python sees them best: a single float of a memoryview costs half of one of an array,
    # and a binary search a sixth.
    times: "memoryview[float]" = field(init=False, repr=False)
    level: "memoryview[float]" = field(init=False, repr=False)
    sums: "memoryview[float]" = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for array, name in ((self.times_s, "times"), (self.values, "level"), (self.prefix, "sums")):
            array.flags.writeable = False
            _set(self, name, array.data)

    @classmethod
    def of(cls, times_s: np.ndarray, values: np.ndarray, period_s: float | None) -> "_Steps":
        """Check the arrays, join equal neighbours so that every instant is a real change, and sum them up."""
        times = np.asarray(times_s, dtype=np.float64)
        values = np.asarray(values, dtype=np.float64)
        _check_steps(times, values, period_s)
        real = np.concatenate(([True], np.diff(values) != 0))
        times, values = times[real], values[real]
        edges = times if period_s is None else np.append(times, period_s)
        prefix = np.concatenate(([0.0], np.cumsum(np.diff(edges) * values[: len(edges) - 1])))
        return cls(times, values, period_s, prefix)

    def here(self, position: float) -> tuple[float, float]:
        """Return the value at a position inside the period, and how long it lasts from there."""
        after = bisect_right(self.times, position) or 1
        if after < len(self.times):
            edge = self.times[after]
        else:
            edge = math.inf if self.period_s is None else self.period_s
        return self.level[after - 1], edge - position

    def summed(self, position: float) -> float:
        """Return the integral from 0 to a position that may lie beyond the period, or before 0."""
        whole = 0.0
        if self.period_s is not None:
            loops, position = divmod(position, self.period_s)
            whole = loops * self.sums[-1]
        k = (bisect_right(self.times, position) or 1) - 1
        return whole + (self.sums[k] + (position - self.times[k]) * self.level[k])

    def root(self, target: float) -> float:
        """Return the earliest position with this integral from 0."""
        if self.period_s is None:
            return self._root_in_one_pass(target)
        total = self.sums[-1]
        if total <= 0:
            return math.inf
        # The target in (0, total] of its own pass: ending exactly with a pass belongs to that pass.
        loops = math.ceil(target / total) - 1
        rest = min(max(target - loops * total, 0.0), total)
        return loops * self.period_s + self._root_in_one_pass(rest)

    def _root_in_one_pass(self, target: float) -> float:
        k = min(bisect_left(self.sums, target) or 1, len(self.level))
        rate = self.level[k - 1]
        if rate == 0:
            return math.inf
        return self.times[k - 1] + (target - self.sums[k - 1]) / rate


@dataclass(frozen=True, slots=True, eq=False, init=False)
class StepTrace:
    """A piecewise-constant, non-negative function of time.

    Shifted and scaled views share the arrays, so one measured trace serves a whole fleet.

    Args:
        times_s: Instants at which a new value begins; the first is 0, strictly increasing.
        values: The value from each instant on.
        period_s: Length after which the trace begins again; without it the last value holds for ever.
        offset_s: The trace is read this much later than the query says.
        scale: Every value is multiplied by this.
    """

    _steps: _Steps
    offset_s: float
    scale: float

    def __init__(
        self,
        times_s: np.ndarray,
        values: np.ndarray,
        period_s: float | None = None,
        offset_s: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        self._adopt(_Steps.of(times_s, values, period_s), offset_s, scale)

    def _adopt(self, steps: _Steps, offset_s: float, scale: float) -> None:
        """Check scale and offset, and fold the offset into the period."""
        if not (0 <= scale < math.inf and -math.inf < offset_s < math.inf):
            raise TraceError(
                f"step trace: expected a finite offset and a scale >= 0, got {offset_s} and {scale}"
            )
        _set(self, "_steps", steps)
        _set(self, "offset_s", offset_s if steps.period_s is None else offset_s % steps.period_s)
        _set(self, "scale", scale)

    @property
    def times_s(self) -> np.ndarray:
        """Instants at which a new value begins, unshifted; equal neighbours are joined."""
        return self._steps.times_s

    @property
    def values(self) -> np.ndarray:
        """The value from each instant on, unscaled."""
        return self._steps.values

    @property
    def period_s(self) -> float | None:
        """Length after which the trace begins again, or None."""
        return self._steps.period_s

    @property
    def prefix(self) -> np.ndarray:
        """Integral from 0 to each instant, unscaled and unshifted."""
        return self._steps.prefix

    @property
    def is_constant(self) -> bool:
        """Whether the value never changes."""
        return len(self._steps.level) == 1 or self.scale == 0

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
        return self.seen(offset_s, 1.0)

    def scaled(self, factor: float) -> "StepTrace":
        """Return a view whose values are multiplied by this factor."""
        return self.seen(0.0, factor)

    def seen(self, offset_s: float, factor: float) -> "StepTrace":
        """Return a view that is shifted and scaled; devices are made by the million, arrays checked once."""
        view = object.__new__(StepTrace)
        view._adopt(self._steps, self.offset_s + offset_s, self.scale * factor)
        return view

    def value(self, t_s: float) -> float:
        """Return the value at this instant."""
        steps = self._steps
        if len(steps.level) == 1:
            return steps.level[0] * self.scale
        return steps.level[(bisect_right(steps.times, self._position(t_s)) or 1) - 1] * self.scale

    def next_change_s(self, t_s: float) -> float:
        """Return the earliest instant after `t_s` at which the value differs; infinity if there is none."""
        steps = self._steps
        if len(steps.level) == 1 or self.scale == 0:
            return math.inf
        position = self._position(t_s)
        k = bisect_right(steps.times, position) or 1
        if k < len(steps.times):
            ahead = steps.times[k] - position
        elif steps.period_s is None:
            return math.inf
        else:
            same = steps.level[0] == steps.level[-1]
            ahead = steps.period_s - position + (steps.times[1] if same else 0.0)
        change = max(t_s + ahead, math.nextafter(t_s, math.inf))
        now = self.value(t_s)
        # Adding the offset and folding round to the nearest float; step over the last bits so that the
        # instant returned really has the new value and a caller that walks from change to change gets on.
        while self.value(change) == now:
            change = math.nextafter(change, math.inf)
        return change

    def falls_below_s(self, level: float, start_s: float, end_s: float) -> float:
        """Return the first instant in ``[start_s, end_s)`` with a value below this; infinity if none."""
        at_s = start_s
        while at_s < end_s:
            if self.value(at_s) < level:
                return at_s
            at_s = self.next_change_s(at_s)
        return math.inf

    def integral(self, start_s: float, end_s: float) -> float:
        """Return the integral from `start_s` to `end_s`, which is not before the start."""
        if end_s <= start_s:
            return 0.0
        steps, position = self._steps, self._position(start_s)
        rate, room_s = steps.here(position)
        length_s = end_s - start_s
        if length_s <= room_s:
            return length_s * rate * self.scale
        beyond = steps.summed(position + length_s) - steps.summed(position + room_s)
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
        steps, unscaled = self._steps, amount / self.scale
        if len(steps.level) == 1:
            return start_s + unscaled / steps.level[0] if steps.level[0] else math.inf
        position = self._position(start_s)
        rate, room_s = steps.here(position)
        rest = unscaled - room_s * rate if rate else unscaled
        if rest <= 0:
            return start_s + unscaled / rate
        if room_s == math.inf:
            return math.inf
        target = steps.summed(position + room_s) + rest
        return start_s + max(room_s, steps.root(target) - position)

    def _position(self, t_s: float) -> float:
        shifted, period_s = t_s + self.offset_s, self._steps.period_s
        return shifted if period_s is None else shifted % period_s


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
