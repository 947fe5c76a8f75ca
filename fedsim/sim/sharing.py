"""When does a transfer end whose rate depends on who else transfers? Links that several devices share.

Between two changes all rates are constant, so every end is exact. Rates are solved again when a transfer
begins or ends, or when the capacity of a link changes; once per instant, whatever happens at it. Transfers
that share nothing are solved apart: the devices of one cell, or, below a common link, all of them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import simpy

from fedsim.sim.timeline import WORK, Clock
from fedsim.world.fair import fair_rates
from fedsim.world.link import Link
from fedsim.world.trace import StepTrace

SETTLING = 4  # rates are solved after everything else at their instant
_FIRST_ROOM = 16

Direction = Literal["download", "upload"]

_LIMIT, _CHANGE, _RATE, _SENT, _MARK = range(5)
"""Rows of a group: what the own link carries, when that changes, the rate, bits sent, bits to be told of."""


@dataclass(frozen=True, slots=True)
class SharedCapacity:
    """What the devices share in one direction.

    Args:
        cells: Capacity of each cell, bits per second.
        common: Capacity of the link that all transfers pass, bits per second; None for no such link.
    """

    cells: tuple[StepTrace, ...] = ()
    common: StepTrace | None = None


@dataclass(slots=True, eq=False)
class Flow:
    """One transfer under way.

    Args:
        group: Those it shares with.
        slot: Its place in the arrays of the group; -1 after it has left.
        trace: What the device's own link carries, bits per second.
        begins_s: When its first bit may move.
    """

    group: "Group"
    slot: int
    trace: StepTrace
    begins_s: float
    _sent_bits: float = 0.0
    _waiting: simpy.Event | None = field(default=None, repr=False)

    def end_s(self, start_s: float, size_bytes: float) -> float:
        """Return the present if this much has been sent; else infinity, and wake the client when it has."""
        del start_s
        if self.sent_bits() >= 8.0 * size_bytes:
            return self.group.clock.now
        self.group.mark(self, 8.0 * size_bytes)
        return math.inf

    def done(self, start_s: float, end_s: float) -> float:
        """Return the bytes that have been sent by now."""
        del start_s, end_s
        return self.sent_bits() / 8.0

    def sent_bits(self) -> float:
        """Return what has been sent by now."""
        return self._sent_bits if self.slot < 0 else self.group.sent_bits(self.slot)

    def wake(self, at_s: float, priority: int = WORK) -> simpy.Event:
        """Return an event that fires at this instant, or before when enough has been sent."""
        event = self._waiting = self.group.clock.event()
        if at_s < math.inf:
            self.group.clock.then_at(at_s, lambda: _fire(event), priority)
        return event

    def reached(self) -> None:
        """Wake the client."""
        if self._waiting is not None:
            _fire(self._waiting)

    def leave(self) -> None:
        """Stop; what has been sent stays known."""
        self._sent_bits = self.sent_bits()
        self.group.remove(self)


def _fire(event: simpy.Event) -> None:
    if not event.triggered:
        event.succeed()


class Group:
    """Transfers whose rates depend on each other, in arrays.

    Args:
        clock: Virtual time.
        cells: Capacity of each cell.
        common: Capacity of the link that all pass, or None.
    """

    def __init__(self, clock: Clock, cells: tuple[StepTrace, ...], common: StepTrace | None) -> None:
        self.clock = clock
        self.solves = 0
        self._cells = cells
        self._common = common
        self._flows: list[Flow] = []
        self._updated_s = 0.0
        self._epoch = 0
        self._is_due = False
        self._float = np.zeros((5, _FIRST_ROOM))
        self._cell = np.zeros(_FIRST_ROOM, dtype=np.int64)

    def join(self, trace: StepTrace, cell: int, latency_s: float) -> Flow:
        """Begin a transfer."""
        self._advance()
        slot = len(self._flows)
        if slot == self._float.shape[1]:
            self._float = np.concatenate((self._float, np.zeros_like(self._float)), axis=1)
            self._cell = np.concatenate((self._cell, np.zeros_like(self._cell)))
        flow = Flow(self, slot, trace, self.clock.now + latency_s)
        self._flows.append(flow)
        self._float[:, slot] = (0.0, -math.inf, 0.0, 0.0, math.inf)
        self._cell[slot] = cell
        self._ask()
        return flow

    def remove(self, flow: Flow) -> None:
        """End a transfer; the last one of the arrays takes its place."""
        self._advance()
        last = self._flows.pop()
        if last is not flow:
            self._flows[flow.slot] = last
            self._float[:, flow.slot] = self._float[:, last.slot]
            self._cell[flow.slot] = self._cell[last.slot]
            last.slot = flow.slot
        flow.slot = -1
        self._ask()

    def mark(self, flow: Flow, bits: float) -> None:
        """Wake the client when this much has been sent, if no smaller amount is waited for."""
        if bits < self._float[_MARK, flow.slot]:
            self._float[_MARK, flow.slot] = bits
            self._ask()

    def sent_bits(self, slot: int) -> float:
        """Return what one transfer has sent by now."""
        sent, rate = self._float[_SENT, slot], self._float[_RATE, slot]
        return float(sent + rate * (self.clock.now - self._updated_s))

    def _ask(self) -> None:
        """Solve again at the end of this instant."""
        if not self._is_due:
            self._is_due = True
            self.clock.then_at(self.clock.now, self._solve, SETTLING)

    def _advance(self) -> None:
        """Bring what was sent up to the present."""
        now_s = self.clock.now
        if now_s > self._updated_s:
            live = self._float[:, : len(self._flows)]
            live[_SENT] += live[_RATE] * (now_s - self._updated_s)
        self._updated_s = now_s

    def _solve(self) -> None:
        """Share the links anew, and sleep until the next change."""
        self._is_due = False
        self._epoch += 1
        self._advance()
        if not self._flows:
            return
        self.solves += 1
        now_s, live = self.clock.now, self._float[:, : len(self._flows)]
        for slot in np.flatnonzero(live[_CHANGE] <= now_s).tolist():
            flow = self._flows[slot]
            has_begun = now_s >= flow.begins_s
            live[_LIMIT, slot] = flow.trace.value(now_s) if has_begun else 0.0
            live[_CHANGE, slot] = flow.trace.next_change_s(now_s) if has_begun else flow.begins_s
        cells = np.array([trace.value(now_s) for trace in self._cells])
        common = math.inf if self._common is None else self._common.value(now_s)
        live[_RATE] = fair_rates(live[_LIMIT], self._cell[: len(self._flows)], cells, common)
        self._sleep(now_s, live)

    def _sleep(self, now_s: float, live: np.ndarray) -> None:
        with np.errstate(divide="ignore", invalid="ignore"):
            left = live[_MARK] - live[_SENT]
            reached_s = np.where(left <= 0.0, now_s, now_s + left / live[_RATE])
        reached_s[np.isnan(reached_s)] = math.inf
        shared = [trace.next_change_s(now_s) for trace in (*self._cells, self._common) if trace is not None]
        next_s = min(float(reached_s.min()), float(live[_CHANGE].min()), *shared, math.inf)
        if next_s < math.inf:
            epoch = self._epoch
            due = [self._flows[slot] for slot in np.flatnonzero(reached_s <= next_s).tolist()]
            self.clock.then_at(next_s, lambda: self._wake(epoch, due), WORK)

    def _wake(self, epoch: int, due: list[Flow]) -> None:
        """Tell those who have sent what they wanted; nothing if rates have changed since."""
        if epoch != self._epoch:
            return
        self._advance()
        for flow in due:
            if flow.slot >= 0:
                own = self._float[:, flow.slot]
                own[_SENT] = max(own[_SENT], own[_MARK])
                own[_MARK] = math.inf
                flow.reached()
        self._ask()


class SharedLinks:
    """All links that devices share, in both directions.

    Args:
        clock: Virtual time.
        capacity: Of each direction; a direction that is missing is not shared.
        cell: Cell of each device, -1 for none; None where nobody is in any.
    """

    def __init__(
        self,
        clock: Clock,
        capacity: Mapping[Direction, SharedCapacity],
        cell: Sequence[int] | np.ndarray | None = None,
    ) -> None:
        self._clock = clock
        self._capacity = capacity
        self._cell = cell
        self._groups: dict[tuple[Direction, int], Group] = {}

    @property
    def groups(self) -> Mapping[tuple[Direction, int], Group]:
        """Groups of transfers by direction and cell; cell -1 where a common link joins all."""
        return self._groups

    def shares(self, direction: Direction) -> bool:
        """Whether a transfer in this direction may be slowed down by others."""
        return direction in self._capacity

    def join(self, device: int, direction: Direction, link: Link) -> Flow | None:
        """Begin a transfer of a device; None if it shares nothing in this direction."""
        capacity = self._capacity.get(direction)
        if capacity is None:
            return None
        cell = int(self._cell[device]) if capacity.cells and self._cell is not None else -1
        if capacity.common is None and cell < 0:
            return None
        key = direction, -1 if capacity.common is not None else cell
        group = self._groups.get(key)
        if group is None:
            cells = capacity.cells if capacity.common is not None else (capacity.cells[cell],)
            group = self._groups[key] = Group(self._clock, cells, capacity.common)
        place = cell if capacity.common is not None else 0
        return group.join(link.trace, place, link.latency_s)
