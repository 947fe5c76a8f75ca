"""When does what happen? SimPy owns time and order; asyncio only overlaps real work.

`Timeline` steps the SimPy environment from a coroutine. A process that needs the result of real work yields
the event of `join`; before the clock may move past that instant the timeline awaits the work and triggers
the event. Joins are served in the order in which they were asked, so the record does not depend on which
worker finished first, and a join takes no virtual time.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from heapq import heappush
from typing import Any, Generic, TypeVar

import simpy

from fedsim.errors import SimulationError

T = TypeVar("T")

# Order at equal instants: work that ends exactly at its deadline or departure has succeeded, so whatever
# takes a chance away comes after whatever completes.
WORK = 1
CLOSING = 2
_FIRST = 0


class Clock(simpy.Environment):
    """A SimPy environment that can wake a process at an exact instant.

    A SimPy timeout adds a delay to the present, which may miss the instant meant by a rounding error; the
    ends of transfers are exact roots and should stay so.
    """

    def wake_at(self, at_s: float, priority: int = WORK) -> simpy.Event:
        """Return an event that fires at this very instant.

        Raises:
            SimulationError: If the instant lies in the past or is not a number.
        """
        if not at_s >= self._now:
            raise SimulationError(f"time would fall from {self._now!r} s to {at_s!r} s")
        event = self.event()
        event._ok, event._value = True, None  # noqa: SLF001 - as simpy.Timeout does in its own constructor
        heappush(self._queue, (at_s, priority, next(self._eid), event))  # type: ignore[misc]
        return event

    def call_at(self, at_s: float, call: Callable[[], None], priority: int = WORK) -> None:
        """Call at this very instant, as a process that only waits for it would."""
        # A process begins after whatever is under way at this instant; its wake-up gets its place in the
        # order of equal instants then, and not before.
        self.then_at(self._now, lambda: self.then_at(at_s, call, priority), _FIRST)

    def then_at(self, at_s: float, call: Callable[[], None], priority: int = WORK) -> None:
        """Call at this very instant, as a process that is running and waits for it next would."""
        callbacks = self.wake_at(at_s, priority).callbacks
        assert callbacks is not None
        callbacks.append(lambda _: call())


@dataclass(frozen=True, slots=True)
class _Done(Generic[T]):
    value: T


@dataclass(frozen=True, slots=True)
class _Failed:
    error: Exception


@dataclass(frozen=True, slots=True)
class Work(Generic[T]):
    """Real work under way; hand it to `Timeline.join` when its result counts."""

    task: "asyncio.Task[_Done[T] | _Failed]"

    def result(self) -> T:
        """What has come of it, after the timeline has run; a failure is raised."""
        outcome = self.task.result()
        if isinstance(outcome, _Failed):
            raise outcome.error
        return outcome.value


class Timeline:
    """Steps a clock and joins real work to it. One instance runs one simulation, once."""

    def __init__(self) -> None:
        self.clock = Clock()
        self._joins: deque[tuple[simpy.Event, Work[Any]]] = deque()
        self._group: asyncio.TaskGroup | None = None

    @property
    def now_s(self) -> float:
        """Virtual time, seconds since the run began."""
        return float(self.clock.now)

    def start(self, work: Coroutine[Any, Any, T]) -> Work[T]:
        """Let real work begin; it overlaps whatever happens in virtual time until it is joined.

        Raises:
            SimulationError: If the timeline is not running.
        """
        if self._group is None:
            work.close()
            raise SimulationError("real work can only start while the timeline runs")
        task = self._group.create_task(_capture(work))
        # A task that is cancelled before its first step never enters the work: it is closed here.
        task.add_done_callback(lambda _: work.close())
        return Work(task)

    def join(self, work: Work[T]) -> simpy.Event:
        """Return an event whose value is the result of the work, at this same virtual instant.

        A failure of the work arrives in the process that yields the event.
        """
        event = self.clock.event()
        self._joins.append((event, work))
        return event

    def turn(self) -> simpy.Event:
        """Return an event that fires where that of a join would, at this same virtual instant."""
        return self.join(self.start(_no_work()))

    async def run(self, until: simpy.Event) -> None:
        """Step the clock until an event has been processed.

        Args:
            until: For instance the event that the run has stopped.

        Raises:
            SimulationError: If nothing is left to happen before that.
        """
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                while self._step_on(until):
                    await self._serve()
        except ExceptionGroup as group:
            raise group.exceptions[0] from None  # tasks keep their failures, so this is the loop's own
        finally:
            self._group = None

    def _step_on(self, until: simpy.Event) -> bool:
        """Step until the clock would move past an instant with a join; False once `until` is processed."""
        clock, joins = self.clock, self._joins
        while not until.processed:
            next_s = clock.peek()
            if joins and next_s > clock.now:
                return True
            if next_s == float("inf"):
                raise SimulationError("nothing is left to happen, and the run has not stopped")
            clock.step()
        return False

    async def _serve(self) -> None:
        """Await the oldest join."""
        event, work = self._joins.popleft()
        outcome = await work.task
        if isinstance(outcome, _Failed):
            event.fail(outcome.error)
        else:
            event.succeed(outcome.value)


async def _no_work() -> None:
    """It is over at once."""


async def _capture(work: Coroutine[Any, Any, T]) -> "_Done[T] | _Failed":
    """Keep a failure for whoever joins the work, so that it arrives at its virtual instant."""
    try:
        return _Done(await work)
    except Exception as error:  # noqa: BLE001 - handed on unchanged by `Timeline.join`
        return _Failed(error)
