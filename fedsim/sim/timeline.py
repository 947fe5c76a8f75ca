"""When does what happen? SimPy owns time and order; asyncio only overlaps real work.

`Timeline` steps the SimPy environment from a coroutine. A process that needs the result of real work yields
the event of `join`; before the clock may move past that instant the timeline awaits the work and triggers
the event. Joins are served in the order in which they were asked, so the record does not depend on which
worker finished first, and a join takes no virtual time.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any, Generic, TypeVar

import simpy

from fedsim.errors import SimulationError

T = TypeVar("T")

# Order at equal instants: work that ends exactly at its deadline or departure has succeeded, so whatever
# takes a chance away comes after whatever completes.
WORK = 1
CLOSING = 2


class Clock(simpy.Environment):
    """A SimPy environment that can wake a process at an exact instant.

    A SimPy timeout adds a delay to the present, which may miss the instant meant by a rounding error; the
    ends of transfers are exact roots and should stay so.

    Args:
        initial_time: Where it begins, seconds.
    """

    def __init__(self, initial_time: float = 0.0) -> None:
        super().__init__(float(initial_time))

    def wake_at(self, at_s: float, priority: int = WORK) -> simpy.Event:
        """Return an event that fires at this very instant.

        Raises:
            SimulationError: If the instant lies in the past or is not a number.
        """
        if not at_s >= self._now:
            raise SimulationError(f"time would fall from {self._now!r} s to {at_s!r} s")
        event = simpy.Event(self)
        event._ok, event._value = True, None  # noqa: SLF001 - as simpy.Timeout does in its own constructor
        heappush(self._queue, (at_s, priority, next(self._eid), event))  # type: ignore[misc]
        return event

    def step_until(self, until: simpy.Event, joins: "deque[tuple[simpy.Event, Work[Any]]]") -> bool:
        """Step until time would move past an instant with a join; return False once `until` is processed.

        Each step is `simpy.Environment.step`, written out: a fleet takes millions of them.

        Raises:
            SimulationError: If nothing is left to happen before that.
        """
        queue = self._queue
        while until.callbacks is not None:
            if joins and (not queue or queue[0][0] > self._now):
                return True
            if not queue:
                raise SimulationError("nothing is left to happen, and the run has not stopped")
            self._now, _, _, event = heappop(queue)
            callbacks, event.callbacks = event.callbacks, None  # type: ignore[assignment]
            for call in callbacks:
                call(event)
            if not event.ok and not event.defused:
                failure: Exception = event.value  # type: ignore[assignment]
                raise failure
        return False

    def then_at(self, at_s: float, call: Callable[[], None], priority: int = WORK) -> None:
        """Call at this very instant; calls of one instant and priority keep the order of asking."""
        self.tell_at(at_s, lambda _: call(), priority)

    def tell_at(self, at_s: float, call: Callable[[simpy.Event], None], priority: int = WORK) -> None:
        """Do the same with the event that fires, which spares a call where many are told."""
        callbacks = self.wake_at(at_s, priority).callbacks
        assert callbacks is not None
        callbacks.append(call)


class Walk:
    """A process that begins at once and may be stopped.

    It is what a SimPy process is, less an event for its beginning and one for its end: a fleet makes one for
    each assignment, and nobody waits for them.

    Args:
        steps: Yields the events that it waits for, each of which is still to come and has no value.
    """

    __slots__ = ("_steps", "is_running")

    def __init__(self, steps: Generator[simpy.Event, None, None]) -> None:
        self._steps: Generator[simpy.Event, None, None] | None = steps
        self.is_running = False
        self._go_on()

    def stop(self) -> None:
        """End it where it waits; `GeneratorExit` is raised there."""
        if self._steps is not None:
            self._steps.close()
            self._steps = None

    def _go_on(self, _: simpy.Event | None = None) -> None:
        if self._steps is None:
            return  # it was stopped before what it waited for came
        self.is_running = True
        try:
            callbacks = next(self._steps).callbacks
        except StopIteration:
            self._steps = None
        else:
            assert callbacks is not None
            callbacks.append(self._go_on)
        finally:
            self.is_running = False


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
        now_s: float = self.clock.now
        return now_s

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
                while self.clock.step_until(until, self._joins):
                    await self._serve()
        except ExceptionGroup as group:
            raise group.exceptions[0] from None  # tasks keep their failures, so this is the loop's own
        finally:
            self._group = None

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
