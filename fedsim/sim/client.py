"""What does a device do over time? The SimPy process of one assignment: receive, train, send, leave."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal, Protocol

import simpy

from fedsim.errors import SimulationError
from fedsim.method.messages import Phase
from fedsim.sim.sharing import SharedLinks
from fedsim.sim.timeline import CLOSING, WORK, Clock
from fedsim.sim.trip import Downloading, Job, Training, Trip, Uploading
from fedsim.world.cost import Prices

MIN_PHASE_S = 1e-6
_NEVER = float("inf")

Steps = Generator[simpy.Event, None, None]
Stretch = Generator[simpy.Event, None, bool]


class Desk(Protocol):
    """Where a client reports. A call may change the trip's plan, or end the trip."""

    def progressed(self, trip: Trip) -> simpy.Event:
        """The client waits or downloads, and tells how far it is; returns the answer to wait for."""
        ...

    def downloaded(self, trip: Trip, now_s: float, duration_s: float) -> None:
        """The download is whole."""
        ...

    def trained(self, trip: Trip, now_s: float, duration_s: float) -> None:
        """The local steps are done."""
        ...

    def uploaded(self, trip: Trip, now_s: float, duration_s: float) -> None:
        """The update is whole at the server."""
        ...

    def squeezed(self, trip: Trip) -> None:
        """The device has too little memory left to train its plan; the server may know a smaller one."""
        ...

    def dropped(self, trip: Trip, reason: str) -> None:
        """The device went away."""
        ...

    def paused(self, trip: Trip, resumes_at_s: float) -> None:
        """The device went away and will go on when it is back."""
        ...


class _LeftError(Exception):
    """The device went away; caught in this file."""


class _SqueezedError(Exception):
    """The device has too little memory for its work; caught in this file."""


class _RecalledError(Exception):
    """The server ended the trip while the client was reporting; caught in this file."""


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

    def _download(self) -> Steps:
        began_s = self._begin("download")
        yield from self._work(Downloading(self.trip, reports_regularly=self.report_every_s < _NEVER))
        now_s = self.clock.now
        self.desk.downloaded(self.trip, now_s, now_s - began_s)
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
                now_s = self.clock.now
                self.desk.trained(self.trip, now_s, now_s - began_s)
                return

    def _local_steps(self) -> Steps:
        bill = self.prices.bill(self.trip.plan)
        yield from self._work(Training(self.trip.device, bill.flops, bill.memory_bytes))

    def _upload(self) -> Steps:
        began_s = self._begin("upload")
        yield from self._work(Uploading(self.trip, self.prices.bill(self.trip.plan).bytes_up))
        now_s = self.clock.now
        self.desk.uploaded(self.trip, now_s, now_s - began_s)

    def _begin(self, phase: Phase) -> float:
        now_s = self.clock.now
        self.trip.phase, self.trip.phase_began_s = phase, now_s
        return now_s

    def _check_recall(self) -> None:
        """A report may have ended the trip: a process cannot be interrupted while it is running."""
        if self.trip.recalled:
            raise _RecalledError

    def _work(self, job: Job) -> Steps:
        """Let time pass until a job is done, over departures and returns."""
        carried = 0.0
        while True:
            start_s = self.clock.now
            departure_s = self.trip.device.availability.next_departure_s(start_s)
            if (yield from self._stretch(job, start_s, departure_s, carried)):
                return
            if self.on_interrupt == "drop":
                raise _LeftError("the device left")
            carried += job.done(start_s, departure_s)
            self.trip.under_way = None
            yield from self._wait_for_return(departure_s)

    def _stretch(self, job: Job, start_s: float, departure_s: float, carried: float) -> Stretch:
        """Work without a break until the end or the departure; returns whether the job is done."""
        self.trip.under_way = job, start_s, carried
        if self.links is not None:
            return self._shared_stretch(job, start_s, departure_s, carried)
        if job.is_watched:
            return self._watched_stretch(job, start_s, departure_s, carried)
        return self._lone_stretch(job, start_s, departure_s, carried)

    def _shared_stretch(self, job: Job, start_s: float, departure_s: float, carried: float) -> Stretch:
        """Work over links that others use too, where there are any."""
        assert self.links is not None
        flow = job.share(self.links)
        try:
            return (yield from self._watched_stretch(job, start_s, departure_s, carried))
        finally:
            if flow is not None:
                flow.leave()

    def _lone_stretch(self, job: Job, start_s: float, departure_s: float, carried: float) -> Stretch:
        """Work when both its end and the departure are known from the start."""
        left = max(job.amount() - carried, 0.0)
        finish_s = max(job.end_s(start_s, left), start_s + MIN_PHASE_S)
        if finish_s <= departure_s:
            yield self._wake(job, finish_s, WORK)
            return self._conclude(job, job.amount())
        yield self.clock.wake_at(departure_s, CLOSING)
        self.trip.note_progress(departure_s)
        return False

    def _watched_stretch(self, job: Job, start_s: float, departure_s: float, carried: float) -> Stretch:
        """Work while reports, closing streams, memory or other transfers may come in between."""
        clock, trip = self.clock, self.trip
        now_s = start_s
        while True:
            # A re-plan may ask for no more than what is there, whose last byte came a moment ago.
            end_s = job.end_s(start_s, max(job.amount() - carried, 0.0))
            finish_s = max(end_s, start_s + MIN_PHASE_S, now_s)
            closed_s = self._closed_s(job, start_s, carried)
            killed_s = self._killed_s(start_s, min(finish_s, departure_s), job.memory_bytes)
            wake_s = min(finish_s, closed_s, departure_s, killed_s, self._next_report_s(job))
            is_over = wake_s in (finish_s, closed_s)
            yield self._wake(job, wake_s, WORK if is_over else CLOSING)
            now_s = clock.now
            if now_s >= wake_s == finish_s:
                return self._conclude(job, job.amount())
            trip.note_progress(now_s)
            if now_s < wake_s:
                continue  # over shared links: enough has been sent, sooner than foreseen
            if is_over:
                return self._conclude(job, job.least())
            if wake_s == departure_s:
                return False
            if wake_s == killed_s:
                raise _SqueezedError
            yield self.desk.progressed(trip)
            now_s = clock.now

    def _conclude(self, job: Job, at_least: float) -> bool:
        """Take note of what is surely done, which rounding may have left a byte short."""
        job.note(at_least)
        self.trip.under_way = None
        return True

    def _closed_s(self, job: Job, start_s: float, carried: float) -> float:
        """The instant at which work that may be cut is cut: late enough for the least of it."""
        if job.closes_at_s == _NEVER:
            return _NEVER
        least_s = job.end_s(start_s, max(job.least() - carried, 0.0))
        return max(job.closes_at_s, least_s, self.clock.now, start_s + MIN_PHASE_S)

    def _wake(self, job: Job, at_s: float, priority: int) -> simpy.Event:
        if job.flow is not None:
            return job.flow.wake(at_s, priority)
        if at_s == _NEVER:
            return self.clock.event()  # nothing but a recall can end this
        return self.clock.wake_at(at_s, priority)

    def _next_report_s(self, job: Job) -> float:
        """The next instant at which the client reports: regularly, and when its free memory changes."""
        if not job.reports:
            return _NEVER
        now_s = self.clock.now
        return min(now_s + self.report_every_s, self.trip.device.memory.next_change_s(now_s))

    def _killed_s(self, start_s: float, horizon_s: float, memory_bytes: float) -> float:
        """First instant before the horizon at which less memory is free than the work needs."""
        if not memory_bytes:
            return _NEVER
        at_s = self.trip.device.memory.falls_below_s(memory_bytes, start_s, horizon_s)
        return max(at_s, start_s + MIN_PHASE_S)

    def _wait_for_return(self, departure_s: float) -> Steps:
        resumes_at_s = self.trip.device.availability.next_return_s(departure_s)
        if resumes_at_s == _NEVER:
            raise _LeftError("the device left for good")
        if resumes_at_s <= self.clock.now:
            raise SimulationError(f"device {self.trip.device.device_id} returns before it has left")
        self.desk.paused(self.trip, resumes_at_s)
        yield self.clock.wake_at(resumes_at_s)
