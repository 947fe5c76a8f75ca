"""What does the server decide? A state machine without input or output: `handle(event) -> actions`.

SimPy, a unit test and a replay are three callers of it. It never awaits, reads no clock and touches no file;
it holds ids, ranks and spectra, never tensors. Every assignment is settled exactly once.

This module runs the whole: what each event means for a flight, when to measure and when to stop. When to
aggregate is up to `fedsim.method.rounds` or `fedsim.method.buffer`; what they share is `fedsim.method.core`.
How plans follow their clients is in `fedsim.method.inflight`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from fedsim.errors import ProtocolError
from fedsim.method import events as ev
from fedsim.method.buffer import Buffer
from fedsim.method.config import ServerConfig, StopRule
from fedsim.method.core import Actions, Core, Pace
from fedsim.method.estimate import LinkHistory
from fedsim.method.inflight import InFlight
from fedsim.method.pacing import SyncPacing
from fedsim.method.rounds import Rounds

if TYPE_CHECKING:
    from fedsim.method.state import ServerState

Rule = Callable[[Any], Actions]

__all__ = ["Server", "ServerConfig", "StopRule"]


class Server:
    """The federated server. Feed it events in the order of virtual time; carry out what it asks for."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.core = Core(config)
        self.state: ServerState = self.core.state
        """Everything that the server knows."""
        pacing = config.pacing
        self.pace: Pace = (
            Rounds(self.core, pacing) if isinstance(pacing, SyncPacing) else Buffer(self.core, pacing)
        )
        self.in_flight = InFlight(self.core, self.pace.ended)
        self._rules: dict[type, Rule] = {
            ev.Opened: self._opened,
            ev.FleetSeen: self.pace.fleet_seen,
            ev.FleetGone: self.pace.fleet_gone,
            ev.TimeUp: self._time_up,
            ev.Progressed: self.in_flight.progressed,
            ev.Reported: self.in_flight.reported,
            ev.MemoryFell: self.in_flight.memory_fell,
            ev.Downloaded: self._downloaded,
            ev.Uploaded: self._uploaded,
            ev.TransferCut: self._transfer_cut,
            ev.Dropped: self._dropped,
            ev.DeadlinePassed: self.pace.deadline_passed,
            ev.Aggregated: self.core.aggregated,
            ev.Evaluated: self._evaluated,
        }

    @property
    def history(self) -> LinkHistory:
        """What it has seen of links."""
        return self.core.history

    def listens_to(self, event: str) -> bool:
        """Whether an event of this name may come now."""
        stage, stages = self.state.stage, self.pace.stages.get(event)
        return stage != "stopped" and (stages is None or stage in stages)

    def handle(self, event: ev.Event) -> tuple[ev.Action, ...]:
        """Take one event into account.

        Args:
            event: What happened; times never fall from call to call.

        Returns:
            What to do now, in this order.

        Raises:
            ProtocolError: If the event cannot happen in this state.
        """
        name = type(event).__name__
        if self.state.stage == "stopped":
            raise ProtocolError(f"{name} after the run has stopped")
        if not self.listens_to(name):
            raise ProtocolError(f"{name} while the server is {self.state.stage}")
        actions = list(self._rules[type(event)](event))
        while self.state.stage == "between":
            actions += self._go_on(event.now_s)
        return tuple(actions)

    # --- the run ----------------------------------------------------------------------------------------

    def _opened(self, event: ev.Opened) -> Actions:
        self.state.spectra[0] = event.spectrum
        yield from self._evaluate()

    def _evaluate(self) -> Actions:
        self.state.stage, self.state.measure = "evaluating", False
        yield ev.Evaluate(self.state.version)

    def _evaluated(self, event: ev.Evaluated) -> Actions:
        state, target, loss = self.state, self.config.stop.target_loss, event.evaluation.loss
        state.evaluated = event.evaluation.version
        if state.stopping is None and target is not None and loss is not None and loss <= target:
            state.stopping = f"the loss reached its target of {target:g}"
        state.stage = "between"
        yield from ()

    def _go_on(self, now_s: float) -> Actions:
        """Measure, stop, or leave it to the pacing."""
        state, rounds = self.state, self.config.stop.rounds
        if state.measure and state.stopping is None:
            yield from self._evaluate()
            return
        if state.stopping is None and rounds is not None and state.round >= rounds:
            state.stopping = f"{rounds} rounds are over"
        if state.stopping is None:
            yield from self.pace.open(now_s)
        else:
            yield from self._finish()

    def _time_up(self, event: ev.TimeUp) -> Actions:
        self.state.stopping = self.state.stopping or f"virtual time is over at {event.now_s:g} s"
        if self.state.stage in ("opening", "collecting"):
            self.state.stage = "between"
        yield from ()

    def _finish(self) -> Actions:
        for flight in list(self.state.flights.values()):
            yield from self.core.recall(flight, "cancelled", "end of run")
        if self.state.evaluated < self.state.version:
            yield from self._evaluate()
            return
        self.state.stage = "stopped"
        yield ev.Stop(cast("str", self.state.stopping))

    # --- one assignment ---------------------------------------------------------------------------------

    def _downloaded(self, event: ev.Downloaded) -> Actions:
        flight = self.state.flight(event.assignment, "Downloaded")
        self.history.observe(flight.assignment.client, "download", event.size_bytes, event.duration_s)
        yield from self.in_flight.downloaded(flight, event)

    def _uploaded(self, event: ev.Uploaded) -> Actions:
        flight = self.state.flight(event.assignment, "Uploaded")
        self.history.observe(flight.assignment.client, "upload", event.size_bytes, event.duration_s)
        yield from self.pace.uploaded(flight, event.now_s)

    def _transfer_cut(self, event: ev.TransferCut) -> Actions:
        self.history.observe(event.client, event.direction, event.size_bytes, event.duration_s)
        yield from ()

    def _dropped(self, event: ev.Dropped) -> Actions:
        flight = self.state.flight(event.assignment, "Dropped")
        if event.phase == "upload" and self.core.is_usable(flight, event.received_bytes):
            yield ev.TakePart(event.assignment, event.reason)
            yield from self.pace.uploaded(flight, event.now_s)
            return
        yield from self.core.settle(flight, "dropped", event.reason, event.phase)
        yield from self.pace.ended(event.now_s)
