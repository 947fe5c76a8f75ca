"""Who carries out what the server asks for in a real run? The same server, with sockets and wall time.

`fedsim.sim.server.Driver` does this in virtual time. Here an assignment really travels, a client really
trains, and every instant is read from a monotonic clock; the lines of the record are the same.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from fedsim.deploy.desk import Peer, Said
from fedsim.deploy.errand import Errand, incoming, outgoing, shares_left
from fedsim.deploy.messages import Failed, Recalled, Received, Trained, UpdateSent, Welcome
from fedsim.deploy.parcels import HEAD_BYTES
from fedsim.deploy.present import Present
from fedsim.errors import InputError, PeerError, SimulationError
from fedsim.experiment.build import Experiment
from fedsim.experiment.tasks import device_sets
from fedsim.learn.versions import VersionStore
from fedsim.method import events as ev
from fedsim.method.messages import DeviceReport, TrainingFailure, TrainRequest, Update
from fedsim.sim.client import MIN_PHASE_S
from fedsim.sim.counted import as_counted
from fedsim.sim.delivery import Delivery
from fedsim.sim.recording import Scribe
from fedsim.sim.trip import Trip

if TYPE_CHECKING:
    from fedsim.method.bundle import Combined

NOT_STARTED = "the run has not begun"


@dataclass(slots=True, eq=False)
class Runtime:
    """Carries out the actions of one server for real. Satisfies `fedsim.deploy.desk.House`.

    Args:
        experiment: Fresh; its executor is not used.
        store: Its versions.
        scribe: Writes the record.
        num_awaited: Clients that must be there before the run begins.
    """

    experiment: Experiment
    store: VersionStore
    scribe: Scribe
    num_awaited: int = 1
    peers: dict[int, Peer] = field(default_factory=dict)
    at_work: dict[int, int] = field(default_factory=dict)
    errands: dict[int, Errand] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)
    events: deque[ev.Event] = field(default_factory=deque)
    gathered: asyncio.Event = field(default_factory=asyncio.Event)
    _draining: bool = False
    _awaits_arrival: bool = False
    _began_s: float | None = None
    _stopped: "asyncio.Future[str] | None" = None
    _group: asyncio.TaskGroup | None = None

    # --- the run ----------------------------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        """Wall seconds since the run began."""
        if self._began_s is None:
            raise SimulationError(NOT_STARTED)
        return asyncio.get_running_loop().time() - self._began_s

    async def run(self) -> str:
        """Wait for clients, then serve to the end; returns why it ended."""
        loop = asyncio.get_running_loop()
        await self.gathered.wait()
        self._stopped, self._began_s = loop.create_future(), loop.time()
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                horizon_s = self.experiment.driver_config.horizon_s
                timer = None if horizon_s is None else loop.call_later(horizon_s, self._time_up)
                self.feed(ev.Opened(self.now_s, self.store.spectrum(0)))
                reason = await self._stopped
                if timer is not None:
                    timer.cancel()
        except ExceptionGroup as found:
            raise found.exceptions[0] from None
        return reason

    @property
    def is_over(self) -> bool:
        """Whether the server has stopped, or has not begun."""
        return self._stopped is None or self._stopped.done()

    def _time_up(self) -> None:
        if not self.is_over:
            self.feed(ev.TimeUp(self.now_s))

    def feed(self, event: ev.Event) -> None:
        """Tell the server, and carry out what it asks for; events that this causes wait their turn.

        A failure ends the run: the caller is a connection, which has no use for it.
        """
        self.events.append(event)
        if self._draining:
            return
        self._draining = True
        try:
            with self._failing():
                while self.events and not self.is_over:
                    for action in self.experiment.server.handle(self.events.popleft()):
                        self._carry_out(action)
        finally:
            self._draining = False

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Hand a failure to `run`, which raises it; what a client did wrong stays with its connection."""
        try:
            yield
        except PeerError:
            raise
        except Exception as error:
            if self._stopped is None or self._stopped.done():
                raise
            self._stopped.set_exception(error)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        if self._group is None:
            raise SimulationError(NOT_STARTED)
        self._group.create_task(work)

    def _carry_out(self, action: ev.Action) -> None:
        rules: dict[type, Callable[[Any], None]] = {
            ev.LookAtFleet: self._look,
            ev.Dispatch: self._dispatch,
            ev.Recall: self._recall,
            ev.Decline: self._decline,
            ev.SetDeadline: self._set_deadline,
            ev.Aggregate: self._aggregate,
            ev.Evaluate: lambda action: self._start(self._evaluation(action.version)),
            ev.Settle: self._settle,
            ev.Release: lambda action: self.store.release(action.version),
            ev.CloseRound: lambda action: self.scribe.round_closed(self.now_s, action),
            ev.Stop: self._stop,
        }
        if type(action) not in rules:
            raise SimulationError(f"{type(action).__name__}: a real run cannot change what is on its way")
        rules[type(action)](action)

    def _stop(self, action: ev.Stop) -> None:
        self.scribe.stopped(self.now_s, action.reason)
        if self._stopped is not None:
            self._stopped.set_result(action.reason)

    # --- the fleet --------------------------------------------------------------------------------------

    def admit(self, device: str) -> Welcome:
        """Return what a device is told; see `fedsim.deploy.desk.House`."""
        experiment = self.experiment
        known = experiment.population.device_ids
        if device not in known:
            raise InputError(f"--device {device}: the scenario has no such device; it has {_some(known)}")
        client = known.index(device)
        if client in self.peers:
            raise InputError(f"--device {device}: is connected already")
        scenario = experiment.scenario
        return Welcome(
            client=client,
            num_clients=experiment.population.num_devices,
            scenario=scenario.model_dump(mode="json", by_alias=True),
            scenario_sha256=scenario.scenario_hash,
            sets=list(device_sets(scenario, experiment.population)),
        )

    def joined(self, peer: Peer) -> None:
        """A client is ready."""
        if peer.client in self.peers:
            raise PeerError("this device has connected twice")
        self.peers[peer.client] = peer
        if peer.client in self.seen and not self.is_over:
            with self._failing():
                self.scribe.arrived(self.now_s, self.experiment.reporter.device(peer.client))
        if len(self.peers) >= self.num_awaited:
            self.gathered.set()
        self._someone_is_idle()

    def left(self, peer: Peer, reason: str) -> None:
        """A client is gone; its work is lost."""
        if self.peers.get(peer.client) is peer:
            del self.peers[peer.client]
        if self.is_over:
            return
        if peer.client in self.seen:
            with self._failing():
                self.scribe.departed(self.now_s, self.experiment.reporter.device(peer.client))
        number = self.at_work.get(peer.client)
        if number is not None:
            self._drop(self.errands[number], reason)

    def _drop(self, errand: Errand, reason: str) -> None:
        self.feed(ev.Dropped(self.now_s, errand.trip.assignment.id, errand.trip.phase, reason))

    def _someone_is_idle(self) -> None:
        if self._awaits_arrival and not self.is_over:
            self._awaits_arrival = False
            asyncio.get_running_loop().call_soon(self._see_fleet)

    def _look(self, action: ev.LookAtFleet) -> None:
        if action.at_s is None:
            self._awaits_arrival = True
            return
        delay_s = max(0.0, action.at_s - self.now_s)
        asyncio.get_running_loop().call_later(delay_s, self._see_fleet)

    def _see_fleet(self) -> None:
        if self.is_over or not self.experiment.server.listens_to("FleetSeen"):
            return
        now_s = self.now_s
        with self._failing():
            self.scribe.fleet_seen(now_s, len(self.peers), len(self.at_work))
        idle = {client: peer for client, peer in self.peers.items() if client not in self.at_work}
        self.feed(ev.FleetSeen(now_s, Present(idle, self.experiment.population.num_devices, self._report)))

    def _report(self, client: int) -> DeviceReport:
        reporter, peer = self.experiment.reporter, self.peers.get(client)
        told = asdict(reporter.report(reporter.device(client), self.now_s))
        if peer is not None:
            said = {
                "memory_bytes": peer.ready.memory_bytes,
                "flops": peer.ready.flops,
                "num_examples": peer.ready.num_examples,
            }
            told |= {name: value for name, value in said.items() if value is not None}
        return DeviceReport(**told)

    def _decline(self, action: ev.Decline) -> None:
        self.scribe.declined(self.now_s, self.experiment.reporter.device(action.client), action.reason)

    def _set_deadline(self, action: ev.SetDeadline) -> None:
        def fire() -> None:
            if not self.is_over:
                self.feed(ev.DeadlinePassed(self.now_s, action.round))

        asyncio.get_running_loop().call_later(max(0.0, action.at_s - self.now_s), fire)

    # --- one assignment ---------------------------------------------------------------------------------

    def _dispatch(self, action: ev.Dispatch) -> None:
        assignment, prices = action.assignment, self.experiment.prices
        plan = assignment.offered
        delivery = Delivery.of(plan, prices.down_bytes, prices.merged_bytes(plan.merged))
        trip = Trip(assignment, self.experiment.reporter.device(assignment.client), plan, delivery)
        trip.phase_began_s = self.now_s
        errand = Errand(trip, self.peers[assignment.client])
        self.errands[assignment.id] = errand
        self.at_work[assignment.client] = assignment.id
        self.seen.add(assignment.client)
        self.scribe.dispatched(self.now_s, trip, action.budget)
        self._send(errand)

    def _send(self, errand: Errand) -> None:
        request = TrainRequest(errand.trip.assignment, errand.trip.plan)
        message, body = outgoing(self.experiment, errand, request, self.store.payload(request))
        channel = errand.peer.channel
        channel.max_body = max(channel.max_body, errand.up_bytes + HEAD_BYTES)

        def begins() -> None:
            """Parcels of others may be made between this one's making and its sending."""
            errand.trip.phase_began_s = self.now_s

        errand.peer.tell(message.model_dump(), body, begins)

    def _recall(self, action: ev.Recall) -> None:
        errand = self.errands[action.assignment]
        errand.trip.recalled = True
        errand.peer.tell(Recalled(assignment=action.assignment).model_dump())

    def _settle(self, action: ev.Settle) -> None:
        errand = self.errands.pop(action.assignment)
        self._free(errand.trip)
        self.scribe.settled(self.now_s, errand.trip, action)

    def _free(self, trip: Trip) -> None:
        client = trip.assignment.client
        if self.at_work.get(client) == trip.assignment.id:
            del self.at_work[client]
            self._someone_is_idle()

    def heard(self, peer: Peer, message: Said, body: bytes) -> None:
        """A client said something; what concerns an assignment that has ended is old news."""
        if body and not isinstance(message, UpdateSent):
            raise PeerError(f"{message.kind}: expected no body")
        if message.assignment >= self.experiment.server.state.next_assignment:
            raise PeerError(f"assignment {message.assignment} was never made")
        errand = self.errands.get(message.assignment)
        if errand is None or self.is_over:
            return
        if errand.peer is not peer:
            raise PeerError(f"assignment {message.assignment} is another client's")
        rules: dict[type, tuple[str, Callable[[Errand, Any, bytes], None]]] = {
            Received: ("download", self._received),
            Trained: ("train", self._trained),
            UpdateSent: ("upload", self._uploaded),
            Failed: ("train", self._failed),
        }
        phase, rule = rules[type(message)]
        if errand.trip.phase != phase or errand.answer is not None:
            raise PeerError(f"{message.kind} while the assignment is in its {errand.trip.phase} phase")
        with self._failing():
            rule(errand, message, body)

    def _next_phase(self, trip: Trip) -> float:
        """End a phase; returns its length."""
        now_s = self.now_s
        duration_s, trip.phase_began_s = max(now_s - trip.phase_began_s, MIN_PHASE_S), now_s
        return duration_s

    def _received(self, errand: Errand, _: Received, __: bytes) -> None:
        trip, duration_s = errand.trip, self._next_phase(errand.trip)
        trip.bytes_down = errand.down_bytes
        self.scribe.downloaded(self.now_s, trip, duration_s)
        report = self._report(trip.assignment.client)
        self.feed(ev.Downloaded(self.now_s, trip.assignment.id, trip.bytes_down, duration_s, report))
        if not trip.recalled:
            self.scribe.training_started(self.now_s, trip)
            trip.phase = "train"

    def _trained(self, errand: Errand, _: Trained, __: bytes) -> None:
        duration_s = self._next_phase(errand.trip)
        self.scribe.trained(self.now_s, errand.trip, duration_s)
        errand.trip.phase = "upload"

    def _failed(self, errand: Errand, message: Failed, _: bytes) -> None:
        self._drop(errand, f"training failed: {message.reason}")

    def _uploaded(self, errand: Errand, message: UpdateSent, body: bytes) -> None:
        trip, duration_s = errand.trip, self._next_phase(errand.trip)  # decoding is no part of the transfer
        errand.answer = incoming(self.experiment, errand, message, body)
        trip.bytes_up = errand.up_bytes
        self.scribe.uploaded(self.now_s, trip, duration_s)
        self._free(trip)
        self.feed(ev.Uploaded(self.now_s, trip.assignment.id, trip.bytes_up, duration_s))

    # --- real work --------------------------------------------------------------------------------------

    def _aggregate(self, action: ev.Aggregate) -> None:
        self.scribe.aggregating(self.now_s, action)
        answers = [self.errands[number].answer for number in action.assignments]
        updates = [answer for answer in answers if isinstance(answer, Update)]
        failed = {
            answer.assignment: answer.reason for answer in answers if isinstance(answer, TrainingFailure)
        }
        self._start(self._aggregation(action, updates, failed))

    async def _aggregation(self, action: ev.Aggregate, updates: list[Update], failed: dict[int, str]) -> None:
        combined: Combined | None = None
        if len(updates) >= max(action.minimum, 1):
            counted = as_counted(action, updates, {})
            combined = await self.store.aggregate(action.version, counted, shares_left(action, updates))
        spectrum = self.store.spectrum(action.version) if combined is None else combined.spectrum
        event = ev.Aggregated(
            now_s=self.now_s,
            version=action.version + (combined is not None),
            spectrum=spectrum,
            alignments=combined.alignments if combined else {},
            losses={update.assignment: update.loss for update in updates if update.loss is not None},
            failed={**failed, **(combined.failed if combined else {})},
            pruned=combined.pruned if combined else {},
            defence=combined.defence if combined else None,
        )
        self.scribe.aggregated(event)
        self.feed(event)

    async def _evaluation(self, version: int) -> None:
        evaluation = await self.experiment.work.evaluator.evaluate(version)
        self.scribe.evaluated(self.now_s, evaluation)
        self.feed(ev.Evaluated(self.now_s, evaluation))


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
