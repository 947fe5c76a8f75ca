"""The seam between virtual time and real work."""

import asyncio
import inspect

import pytest

from fedsim.errors import SimulationError
from fedsim.sim.timeline import CLOSING, WORK, Clock, Timeline


async def slow(value, delay_s):
    await asyncio.sleep(delay_s)
    return value


async def broken():
    raise RuntimeError("out of luck")


def run_processes(*processes):
    """Run processes on a fresh timeline until all have ended."""
    timeline = Timeline()
    started = [timeline.clock.process(process(timeline)) for process in processes]
    asyncio.run(timeline.run(timeline.clock.all_of(started)))
    return timeline


def test_joins_are_served_in_the_order_asked_whatever_finishes_first():
    seen = []

    def process(delay_s):
        def body(timeline):
            work = timeline.start(slow(delay_s, delay_s))
            value = yield timeline.join(work)
            seen.append((timeline.now_s, value))

        return body

    run_processes(process(0.05), process(0.0), process(0.02))
    assert seen == [(0.0, 0.05), (0.0, 0.0), (0.0, 0.02)]


def test_the_clock_does_not_pass_a_pending_join():
    order = []

    def trainer(timeline):
        yield timeline.clock.timeout(1.0)
        value = yield timeline.join(timeline.start(slow("trained", 0.02)))
        order.append((timeline.now_s, value))

    def bystander(timeline):
        yield timeline.clock.timeout(1.0)
        order.append((timeline.now_s, "same instant"))
        yield timeline.clock.timeout(0.5)
        order.append((timeline.now_s, "later"))

    run_processes(trainer, bystander)
    assert order == [(1.0, "same instant"), (1.0, "trained"), (1.5, "later")]


def test_a_failure_arrives_in_the_process():
    caught = []

    def process(timeline):
        try:
            yield timeline.join(timeline.start(broken()))
        except RuntimeError as error:
            caught.append(str(error))

    run_processes(process)
    assert caught == ["out of luck"]


def test_an_uncaught_failure_ends_the_run_and_cancels_its_siblings():
    cancelled = []

    async def sibling():
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    def process(timeline):
        timeline.start(sibling())
        yield timeline.join(timeline.start(broken()))

    with pytest.raises(RuntimeError, match="out of luck"):
        run_processes(process)
    assert cancelled == [True]


def test_wakes_at_the_exact_instant():
    clock = Clock(initial_time=604_799.1)
    seen = []

    def process():
        yield clock.wake_at(604_799.3)
        seen.append(clock.now)

    clock.process(process())
    clock.run()
    assert seen == [604_799.3]


def test_completion_comes_before_the_deadline_of_the_same_instant():
    clock, order = Clock(), []

    def wait(name, priority):
        yield clock.wake_at(1.0, priority)
        order.append(name)

    clock.process(wait("deadline", CLOSING))
    clock.process(wait("work", WORK))
    clock.run()
    assert order == ["work", "deadline"]


def test_time_cannot_fall():
    with pytest.raises(SimulationError, match="time would fall"):
        Clock(initial_time=2.0).wake_at(1.0)
    with pytest.raises(SimulationError, match="time would fall"):
        Clock().wake_at(float("nan"))


def test_a_run_that_cannot_go_on_says_so():
    timeline = Timeline()
    with pytest.raises(SimulationError, match="nothing is left to happen"):
        asyncio.run(timeline.run(timeline.clock.event()))


def test_work_outside_the_run_is_refused():
    with pytest.raises(SimulationError, match="while the timeline runs"):
        Timeline().start(slow(1, 0))


@pytest.mark.filterwarnings("error")
def test_work_that_is_cancelled_before_its_first_step_is_closed():
    """An interrupt that arrives while the clock steps cancels before the loop gives work a turn."""
    work = []

    def process(timeline):
        asyncio.current_task().cancel()
        work.append(slow("never", 0.0))
        yield timeline.join(timeline.start(work[0]))

    with pytest.raises(asyncio.CancelledError):
        run_processes(process)
    assert inspect.getcoroutinestate(work[0]) == inspect.CORO_CLOSED
