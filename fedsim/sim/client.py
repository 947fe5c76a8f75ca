"""What does a device do over time? The SimPy process of one assignment: receive, train, send, leave."""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import simpy

from fedsim.errors import SimulationError
from fedsim.method.messages import Assignment, Phase, RankPlan, Stream
from fedsim.sim.delivery import Delivery, Streamed
from fedsim.sim.sharing import Direction, Flow, SharedLinks
from fedsim.sim.timeline import CLOSING, WORK, Clock
from fedsim.world.cost import Prices
from fedsim.world.device import Device

MIN_PHASE_S = 1e-6

Steps = Generator[simpy.Event, object, None]


class Desk(Protocol):
    """Where a client reports. A call may change the trip's plan, or end the trip."""

    def progressed(self, trip: "Trip") -> simpy.Event:
        """The client waits or downloads, and tells how far it is; returns the answer to wait for."""
        ...

    def downloaded(self, trip: "Trip", duration_s: float) -> None:
        """The download is whole."""
        ...

    def trained(self, trip: "Trip", duration_s: float) -> None:
        """The local steps are done."""
        ...

    def uploaded(self, trip: "Trip", duration_s: float) -> None:
        """The update is whole at the server."""
        ...

    def squeezed(self, trip: "Trip") -> None:
        """The device has too little memory left to train its plan; the server may know a smaller one."""
        ...

    def dropped(self, trip: "Trip", reason: str) -> None:
        """The device went away."""
        ...

    def paused(self, trip: "Trip", resumes_at_s: float) -> None:
        """The device went away and will go on when it is back."""
        ...


@dataclass(slots=True)
class Trip:
    """One assignment on its way: what is planned, and how far it got.

    Args:
        assignment: What was dispatched.
        device: The machine it runs on.
        plan: The newest plan; the server may change it until the download ends.
        delivery: The stream of columns of that plan.
        phase: What the client does now.
        phase_began_s: Virtual time at which the phase began.
        bytes_down: Bytes received.
        bytes_up: Bytes sent.
        process: The SimPy process; None before it runs.
        recalled: Whether the server has told it to stop.
        note_progress: Brings the byte counts up to the present instant.
    """

    assignment: Assignment
    device: Device
    plan: RankPlan
    delivery: Delivery | Streamed
    phase: Phase = "download"
    phase_began_s: float = 0.0
    bytes_down: int = 0
    bytes_up: int = 0
    process: simpy.Process | None = field(default=None, repr=False)
    recalled: bool = False
    note_progress: Callable[[], None] = field(default=lambda: None, repr=False)

    def replan(self, plan: RankPlan, stream: Stream | None = None) -> None:
        """Follow a new plan from here on."""
        if self.phase == "download":
            self.delivery = self.delivery.replanned(self.bytes_down, plan, stream)
        self.plan = plan


class _LeftError(Exception):
    """The device went away; caught in this file."""


class _SqueezedError(Exception):
    """The device has too little memory for its work; caught in this file."""


class _RecalledError(Exception):
    """The server ended the trip while the client was reporting; caught in this file."""


@dataclass(frozen=True, slots=True)
class _Job:
    """Work that takes time on one resource of the device.

    Args:
        amount: How much there is to do; a re-plan may change it.
        end_s: (start, amount) -> instant at which that much is done.
        done: (start, end) -> how much is done in between.
        note: Takes the amount done so far.
        reports: Whether the client reports on the way.
        memory_bytes: What the work needs; the device kills it when less is free.
        closes_at_s: When the work may end before it is done.
        least: Amount that must be done before it may.
        wake: (instant, priority) -> event that fires then, or earlier if something is done by others' leave;
            None for the clock's own.
        share: Begins a transfer over links that others use too; None where there are none.
    """

    amount: Callable[[], float]
    end_s: Callable[[float, float], float]
    done: Callable[[float, float], float]
    note: Callable[[float], None]
    reports: bool = False
    memory_bytes: float = 0.0
    closes_at_s: float = float("inf")
    least: Callable[[], float] = lambda: 0.0
    wake: Callable[[float, int], simpy.Event] | None = None
    share: Callable[[], Flow | None] = lambda: None

    def over(self, flow: Flow | None) -> "_Job":
        """Return the same work where how fast it goes depends on others."""
        return self if flow is None else replace(self, end_s=flow.end_s, done=flow.done, wake=flow.wake)


@dataclass(slots=True)
class Client:
    """The process of one trip.

    Args:
        clock: Virtual time.
        trip: The assignment.
        desk: Where it reports.
        prices: What it costs.
        on_interrupt: Whether a device that leaves drops its work, or goes on when it is back.
        report_every_s: How often a downloading client reports.
        on_memory_drop: Whether training that lacks memory is lost, or begins again with a smaller plan.
        links: Links that devices share; None where none are.
    """

    clock: Clock
    trip: Trip
    desk: Desk
    prices: Prices
    on_interrupt: Literal["drop", "pause"]
    report_every_s: float
    on_memory_drop: Literal["drop", "shrink"] = "drop"
    links: SharedLinks | None = None

    def run(self) -> Steps:
        """Receive, train, send; a departure or a recall ends the trip early."""
        try:
            yield from self._download()
            yield from self._train()
            yield from self._upload()
        except _LeftError as left:
            self.desk.dropped(self.trip, str(left))
        except _RecalledError:
            return
        except simpy.Interrupt:
            if not self.trip.recalled:
                raise

    def _download(self) -> Steps:
        trip, link = self.trip, self.trip.device.downlink

        def note(sent: float) -> None:
            trip.bytes_down = max(trip.bytes_down, min(trip.delivery.size_bytes, int(sent)))

        began_s = self._begin("download")
        yield from self._work(
            _Job(
                amount=lambda: float(trip.delivery.size_bytes),
                end_s=link.transfer_end_s,
                done=link.bytes_between,
                note=note,
                reports=True,
                closes_at_s=trip.delivery.closes_at_s,
                least=lambda: float(trip.delivery.least_bytes),
                share=lambda: self._join("download"),
            )
        )
        self.desk.downloaded(trip, self.clock.now - began_s)
        self._check_recall()

    def _train(self) -> Steps:
        began_s = self._begin("train")
        while True:
            try:
                yield from self._local_steps()
            except _SqueezedError:
                if self.on_memory_drop == "drop":
                    raise _LeftError("the device ran out of memory") from None
                self.desk.squeezed(self.trip)
                self._check_recall()
            else:
                self.desk.trained(self.trip, self.clock.now - began_s)
                return

    def _local_steps(self) -> Steps:
        plan, device = self.trip.plan, self.trip.device
        flops = self.prices.flops(plan.total, plan.trained)
        yield from self._work(
            _Job(
                amount=lambda: flops,
                end_s=device.compute_end_s,
                done=device.compute.integral,
                note=_no_bytes,
                memory_bytes=self.prices.memory_bytes(plan.total, plan.trained),
            )
        )

    def _upload(self) -> Steps:
        trip, link = self.trip, self.trip.device.uplink
        size = self.prices.bytes_up(trip.plan)

        def note(sent: float) -> None:
            trip.bytes_up = max(trip.bytes_up, min(size, int(sent)))

        began_s = self._begin("upload")
        yield from self._work(
            _Job(
                amount=lambda: float(size),
                end_s=link.transfer_end_s,
                done=link.bytes_between,
                note=note,
                share=lambda: self._join("upload"),
            )
        )
        self.desk.uploaded(trip, self.clock.now - began_s)

    def _join(self, direction: Direction) -> Flow | None:
        """Begin a transfer over shared links, if there are any."""
        device = self.trip.device
        link = device.downlink if direction == "download" else device.uplink
        return None if self.links is None else self.links.join(device.index, direction, link)

    def _begin(self, phase: Phase) -> float:
        now_s = float(self.clock.now)
        self.trip.phase, self.trip.phase_began_s = phase, now_s
        return now_s

    def _check_recall(self) -> None:
        """A report may have ended the trip: a process cannot be interrupted while it is running."""
        if self.trip.recalled:
            raise _RecalledError

    def _work(self, job: _Job) -> Steps:
        """Let time pass until a job is done, over departures and returns."""
        carried = 0.0
        while True:
            start_s = float(self.clock.now)
            departure_s = self.trip.device.availability.next_departure_s(start_s)
            flow = job.share()
            own = job.over(flow)
            try:
                finished = yield from self._stretch(own, start_s, departure_s, carried)
            finally:
                if flow is not None:
                    flow.leave()
            if finished:
                return
            if self.on_interrupt == "drop":
                raise _LeftError("the device left")
            carried += own.done(start_s, departure_s)
            self.trip.note_progress = lambda: None
            yield from self._wait_for_return(departure_s)

    def _stretch(
        self, job: _Job, start_s: float, departure_s: float, carried: float
    ) -> Generator[simpy.Event, object, bool]:
        """Work without a break until the end or the departure; returns whether the job is done."""
        note = self.trip.note_progress = lambda: job.note(carried + job.done(start_s, float(self.clock.now)))
        while True:
            left = max(job.amount() - carried, 0.0)
            # A re-plan may ask for no more than what is there, whose last byte came a moment ago.
            finish_s = max(job.end_s(start_s, left), start_s + MIN_PHASE_S, float(self.clock.now))
            closed_s = self._closed_s(job, start_s, carried)
            killed_s = self._killed_s(start_s, min(finish_s, departure_s), job.memory_bytes)
            wake_s = min(finish_s, closed_s, departure_s, killed_s, self._next_report_s(job))
            is_over = wake_s in (finish_s, closed_s)
            yield self._wake(job, wake_s, WORK if is_over else CLOSING)
            note()
            if self.clock.now < wake_s:
                continue  # over shared links: enough has been sent, sooner than foreseen
            if is_over:
                self._conclude(job, job.amount() if wake_s == finish_s else job.least())
                return True
            if wake_s == departure_s:
                return False
            if wake_s == killed_s:
                raise _SqueezedError
            yield self.desk.progressed(self.trip)

    def _conclude(self, job: _Job, at_least: float) -> None:
        """Take note of what is surely done, which rounding may have left a byte short."""
        job.note(at_least)
        self.trip.note_progress = lambda: None

    def _closed_s(self, job: _Job, start_s: float, carried: float) -> float:
        """The instant at which work that may be cut is cut: late enough for the least of it."""
        if job.closes_at_s == float("inf"):
            return job.closes_at_s
        least_s = job.end_s(start_s, max(job.least() - carried, 0.0))
        return max(job.closes_at_s, least_s, float(self.clock.now), start_s + MIN_PHASE_S)

    def _wake(self, job: _Job, at_s: float, priority: int) -> simpy.Event:
        if job.wake is not None:
            return job.wake(at_s, priority)
        if at_s == float("inf"):
            return self.clock.event()  # nothing but a recall can end this
        return self.clock.wake_at(at_s, priority)

    def _next_report_s(self, job: _Job) -> float:
        """The next instant at which the client reports: regularly, and when its free memory changes."""
        if not job.reports:
            return float("inf")
        now_s = float(self.clock.now)
        return min(now_s + self.report_every_s, self.trip.device.memory.next_change_s(now_s))

    def _killed_s(self, start_s: float, horizon_s: float, memory_bytes: float) -> float:
        """First instant before the horizon at which less memory is free than the work needs."""
        memory = self.trip.device.memory
        at_s = start_s
        while memory_bytes > 0 and at_s < horizon_s:
            if memory.value(at_s) < memory_bytes:
                return max(at_s, start_s + MIN_PHASE_S)
            at_s = memory.next_change_s(at_s)
        return float("inf")

    def _wait_for_return(self, departure_s: float) -> Steps:
        resumes_at_s = self.trip.device.availability.next_return_s(departure_s)
        if resumes_at_s == float("inf"):
            raise _LeftError("the device left for good")
        if resumes_at_s <= self.clock.now:
            raise SimulationError(f"device {self.trip.device.device_id} returns before it has left")
        self.desk.paused(self.trip, resumes_at_s)
        yield self.clock.wake_at(resumes_at_s)


def _no_bytes(done: float) -> None:
    """Training moves no bytes."""
