"""Who carries out what the server asks for? The driver: events go in, actions become processes."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simpy

from fedsim.method import events as ev
from fedsim.method.messages import UploadCut
from fedsim.method.queue import LARGE_FLEET
from fedsim.method.server import Server
from fedsim.sim.client import Client
from fedsim.sim.delivery import delivery_of
from fedsim.sim.driver_config import DriverConfig, RealWork
from fedsim.sim.fleet import FleetAt, Reporter
from fedsim.sim.presence import Presence
from fedsim.sim.recording import Scribe
from fedsim.sim.sharing import SharedLinks
from fedsim.sim.timeline import CLOSING, Timeline, Walk
from fedsim.sim.trip import Trip
from fedsim.sim.workshop import Workshop
from fedsim.world.cost import Prices

__all__ = ["Driver", "DriverConfig", "RealWork"]

COUNT_EVERY_S = 600.0
"""How often the devices online are counted for the record where there are too many to count at each look."""

LAST = 3  # a look at the fleet and the end of the run come after everything else at their instant


@dataclass(slots=True)
class Driver:
    """Carries out the actions of one server in virtual time. Satisfies `fedsim.sim.client.Desk`."""

    timeline: Timeline
    server: Server
    reporter: Reporter
    prices: Prices
    work: RealWork
    scribe: Scribe
    config: DriverConfig
    links: SharedLinks | None = None
    trips: dict[int, Trip] = field(default_factory=dict)
    at_work: dict[int, int] = field(default_factory=dict)
    cuts: dict[int, UploadCut] = field(default_factory=dict)
    reports: list[ev.Progressed] = field(default_factory=list)
    events: deque[ev.Event] = field(default_factory=deque)
    draining: bool = False
    busy: np.ndarray = field(init=False)
    presence: Presence = field(init=False)
    workshop: Workshop = field(init=False)
    stopped: simpy.Event = field(init=False)
    rules: dict[type, Callable[[Any], None]] = field(init=False)
    next_count_s: float = 0.0

    def __post_init__(self) -> None:
        """Prepare what depends on the timeline."""
        self.stopped = self.timeline.clock.event()
        self.busy = np.zeros(self.reporter.population.num_devices, dtype=np.bool_)
        self.presence = Presence(self.timeline.clock, self.reporter.population, self.scribe)
        shares_uploads = self.links is not None and self.links.shares("upload")
        self.workshop = Workshop(
            self.timeline, self.work, self.scribe, self.config, self.prices, self.feed, shares_uploads
        )
        self.rules = self._rules()

    async def run(self) -> str:
        """Run the simulation to its end; returns why it stopped."""
        if self.config.horizon_s is not None:
            self._at(self.config.horizon_s, lambda now_s: self.feed(ev.TimeUp(now_s)), LAST)
        self.feed(ev.Opened(0.0, self.work.aggregator.spectrum(0)))
        await self.timeline.run(self.stopped)
        self.workshop.close()
        return str(self.stopped.value)

    def feed(self, event: ev.Event) -> None:
        """Tell the server, and carry out what it asks for; events that this causes wait their turn."""
        self.events.append(event)
        if self.draining:
            return
        self.draining = True
        try:
            while self.events and not self.stopped.triggered:
                for action in self.server.handle(self.events.popleft()):
                    self.rules[type(action)](action)
        finally:
            self.draining = False

    def _rules(self) -> dict[type, Callable[[Any], None]]:
        return {
            ev.LookAtFleet: self._look,
            ev.Dispatch: self._dispatch,
            ev.Replan: self._replan,
            ev.Recall: self._recall,
            ev.TakePart: self._take_part,
            ev.Decline: self._decline,
            ev.SetDeadline: self._set_deadline,
            ev.Aggregate: self._aggregate,
            ev.Evaluate: self.workshop.evaluate,
            ev.Settle: self._settle,
            ev.Release: self._release,
            ev.CloseRound: self._close_round,
            ev.Stop: self._stop,
        }

    # --- clients ----------------------------------------------------------------------------------------

    def _dispatch(self, action: ev.Dispatch) -> None:
        assignment, clock = action.assignment, self.timeline.clock
        device = self.reporter.device(assignment.client)
        trip = Trip(assignment, device, assignment.offered, delivery_of(action, self.prices))
        self.trips[assignment.id] = trip
        self.at_work[assignment.client] = assignment.id
        self.busy[assignment.client] = True
        if self.config.watches_presence:
            self.presence.watch(device)
        self.scribe.dispatched(self.timeline.now_s, trip, action.budget)
        config = self.config
        client = Client(
            clock,
            trip,
            self,
            self.prices,
            config.on_interrupt,
            config.report_every_s,
            config.on_memory_drop,
            self.links,
        )
        trip.walk = Walk(client.run())

    def _replan(self, action: ev.Replan) -> None:
        trip = self.trips[action.assignment]
        trip.note_progress(self.timeline.now_s)
        trip.replan(action.new, action.stream)
        self.scribe.replanned(self.timeline.now_s, action)

    def _recall(self, action: ev.Recall) -> None:
        trip = self.trips[action.assignment]
        trip.note_progress(self.timeline.now_s)
        trip.recalled = True
        self._tell_of_cut(trip)
        self._interrupt(trip)

    def _interrupt(self, trip: Trip) -> None:
        """Stop a client, unless it is the one that is reporting: it sees by itself that it was recalled."""
        if trip.walk is not None and not trip.walk.is_running:
            trip.walk.stop()

    def _take_part(self, action: ev.TakePart) -> None:
        """End an upload; what has come of it is the update."""
        trip, number, now_s = self.trips[action.assignment], action.assignment, self.timeline.now_s
        trip.note_progress(self.timeline.now_s)
        trip.recalled = True
        if trip.walk is None or not trip.walk.is_running:
            self._tell_of_cut(trip)
        self.cuts[number] = UploadCut(trip.bytes_up, tuple(self.prices.up_bytes.tolist()))
        self.scribe.uploaded(now_s, trip, now_s - trip.phase_began_s, cut=action.reason)
        self._free(trip)
        self._interrupt(trip)

    def _tell_of_cut(self, trip: Trip) -> None:
        """A cut transfer still shows how fast the link is."""
        if trip.phase == "train":
            return
        size = trip.bytes_down if trip.phase == "download" else trip.bytes_up
        now_s = self.timeline.now_s
        self.feed(ev.TransferCut(now_s, trip.assignment.client, trip.phase, size, now_s - trip.phase_began_s))

    def _decline(self, action: ev.Decline) -> None:
        device = self.reporter.device(action.client)
        self.scribe.declined(self.timeline.now_s, device, action.reason)

    def _settle(self, action: ev.Settle) -> None:
        trip = self.trips.pop(action.assignment)
        self._free(trip)
        self.workshop.forget(action.assignment)
        self.cuts.pop(action.assignment, None)
        self.scribe.settled(self.timeline.now_s, trip, action)

    def _free(self, trip: Trip) -> None:
        """A client whose update has come may be asked again, whether or not that update has been combined."""
        client = trip.assignment.client
        if self.at_work.get(client) == trip.assignment.id:
            del self.at_work[client]
            self.busy[client] = False

    def progressed(self, trip: Trip) -> simpy.Event:
        """A client waits or downloads; the server hears of all who report at this instant together."""
        clock, now_s = self.timeline.clock, self.timeline.now_s
        received = trip.delivery.received(trip.bytes_down)
        if not self.reports:
            clock.then_at(now_s, self._tell_reports, CLOSING)
        report = self.reporter.report(trip.device, now_s)
        self.reports.append(ev.Progressed(now_s, trip.assignment.id, trip.bytes_down, received, report))
        return clock.wake_at(now_s, CLOSING)

    def _tell_reports(self) -> None:
        """Pass on the reports of this instant; who has been recalled since reports no more."""
        reports, self.reports = self.reports, []
        kept = tuple(report for report in reports if report.assignment in self.trips)
        if kept and not self.stopped.triggered:
            self.feed(kept[0] if len(kept) == 1 else ev.Reported(kept[0].now_s, kept))

    def downloaded(self, trip: Trip, now_s: float, duration_s: float) -> None:
        """A download is over; its plan is final when the server has heard of it."""
        number, report = trip.assignment.id, self.reporter.report(trip.device, now_s)
        received = trip.delivery.whole(trip.bytes_down)
        unused = None if received is None else trip.bytes_down - self.prices.download_bytes(received)
        self.scribe.downloaded(now_s, trip, duration_s, unused)
        self.feed(ev.Downloaded(now_s, number, trip.bytes_down, duration_s, report, received))
        if not trip.recalled:
            self._begin_training(trip, now_s)

    def _begin_training(self, trip: Trip, now_s: float) -> None:
        self.scribe.training_started(now_s, trip)
        self.workshop.begin(trip)

    def squeezed(self, trip: Trip) -> None:
        """A client has too little memory to train its plan; its steps begin again with a smaller one."""
        now_s = self.timeline.now_s
        self.feed(ev.MemoryFell(now_s, trip.assignment.id, self.reporter.report(trip.device, now_s)))
        if not trip.recalled:
            self._begin_training(trip, now_s)

    def trained(self, trip: Trip, now_s: float, duration_s: float) -> None:
        """The local steps are done."""
        self.scribe.trained(now_s, trip, duration_s)
        self.workshop.finish(trip)

    def uploaded(self, trip: Trip, now_s: float, duration_s: float) -> None:
        """An update reached the server."""
        self.scribe.uploaded(now_s, trip, duration_s)
        self._free(trip)
        self.feed(ev.Uploaded(now_s, trip.assignment.id, trip.bytes_up, duration_s))

    def dropped(self, trip: Trip, reason: str) -> None:
        """A device left, or could not go on."""
        self._tell_of_cut(trip)
        self.feed(ev.Dropped(self.timeline.now_s, trip.assignment.id, trip.phase, reason, trip.bytes_up))

    def paused(self, trip: Trip, resumes_at_s: float) -> None:
        """A device left and will go on when it is back."""
        self.scribe.paused(self.timeline.now_s, trip, resumes_at_s)

    # --- the fleet and the clock ------------------------------------------------------------------------

    def _look(self, action: ev.LookAtFleet) -> None:
        population, now_s = self.reporter.population, self.timeline.now_s
        at_s = population.next_arrival_s(now_s) if action.at_s is None else action.at_s
        if at_s == float("inf"):
            self.feed(ev.FleetGone(now_s))
            return
        self.timeline.clock.tell_at(at_s, self._see_fleet, LAST)

    def _see_fleet(self, _: simpy.Event) -> None:
        if self.stopped.triggered or not self.server.listens_to("FleetSeen"):
            return  # the run ended while the server was waiting
        now_s = self.timeline.now_s
        fleet = FleetAt(self.reporter, now_s, self.busy, self.at_work)
        if fleet.num_devices <= LARGE_FLEET or now_s >= self.next_count_s:
            self.scribe.fleet_seen(now_s, len(fleet.present), len(self.at_work))
            self.next_count_s = now_s + COUNT_EVERY_S
        self.feed(ev.FleetSeen(now_s, fleet))

    def _set_deadline(self, action: ev.SetDeadline) -> None:
        def fire(now_s: float) -> None:
            self.feed(ev.DeadlinePassed(now_s, action.round, self._uploading()))

        self._at(action.at_s, fire, CLOSING)

    def _uploading(self) -> dict[int, int]:
        """Bytes that have come of each upload under way, where they may count."""
        if not self.config.partial_upload:
            return {}
        trips = [trip for trip in self.trips.values() if trip.phase == "upload" and not trip.recalled]
        for trip in trips:
            trip.note_progress(self.timeline.now_s)
        return {trip.assignment.id: trip.bytes_up for trip in trips}

    def _at(self, at_s: float, call: Callable[[float], None], priority: int) -> None:
        def fire() -> None:
            if not self.stopped.triggered:
                call(self.timeline.now_s)

        self.timeline.clock.then_at(at_s, fire, priority)

    # --- versions ---------------------------------------------------------------------------------------

    def _aggregate(self, action: ev.Aggregate) -> None:
        self.scribe.aggregating(self.timeline.now_s, action)
        self.workshop.aggregate(action, self.cuts)

    def _release(self, action: ev.Release) -> None:
        self.work.aggregator.release(action.version)

    def _close_round(self, action: ev.CloseRound) -> None:
        self.scribe.round_closed(self.timeline.now_s, action)

    def _stop(self, action: ev.Stop) -> None:
        self.scribe.stopped(self.timeline.now_s, action.reason)
        self.stopped.succeed(action.reason)
