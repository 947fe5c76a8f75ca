"""What does the server decide? A state machine without input or output: `handle(event) -> actions`.

SimPy, a unit test and a replay are three callers of it. It never awaits, reads no clock and touches no file;
it holds ids, ranks and spectra, never tensors. Every assignment is settled exactly once.

This module runs the whole: what each event means for a flight, when to measure and when to stop. When to
aggregate is up to `fedsim.method.rounds` or `fedsim.method.buffer`; what they share is `fedsim.method.core`.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from fedsim.errors import ProtocolError
from fedsim.method import events as ev
from fedsim.method.buffer import Buffer
from fedsim.method.bundle import Infeasible
from fedsim.method.core import Actions, Core, Pace, ServerConfig, StopRule
from fedsim.method.estimate import LinkHistory, budget_ahead, budget_in_flight, moved
from fedsim.method.messages import Budget
from fedsim.method.pacing import SyncPacing
from fedsim.method.rounds import Rounds
from fedsim.method.standing import standing, with_merged
from fedsim.method.state import Flight, ServerState

Rule = Callable[[Any], Actions]

__all__ = ["Server", "ServerConfig", "StopRule"]


class Server:
    """The federated server. Feed it events in the order of virtual time; carry out what it asks for."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.core = Core(config)
        pacing = config.pacing
        self.pace: Pace = (
            Rounds(self.core, pacing) if isinstance(pacing, SyncPacing) else Buffer(self.core, pacing)
        )
        self._rules: dict[type, Rule] = {
            ev.Opened: self._opened,
            ev.FleetSeen: self.pace.fleet_seen,
            ev.FleetGone: self.pace.fleet_gone,
            ev.TimeUp: self._time_up,
            ev.Progressed: self._progressed,
            ev.Downloaded: self._downloaded,
            ev.Uploaded: self._uploaded,
            ev.TransferCut: self._transfer_cut,
            ev.Dropped: self._dropped,
            ev.DeadlinePassed: self.pace.deadline_passed,
            ev.Aggregated: self.core.aggregated,
            ev.Evaluated: self._evaluated,
        }

    @property
    def state(self) -> ServerState:
        """Everything that the server knows."""
        return self.core.state

    @property
    def history(self) -> LinkHistory:
        """What it has seen of links."""
        return self.core.history

    def listens_to(self, event: str) -> bool:
        """Whether an event of this name may come now."""
        stage = self.state.stage
        return stage != "stopped" and stage in self.pace.stages.get(event, {stage})

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

    def _progressed(self, event: ev.Progressed) -> Actions:
        flight = self.state.flight(event.assignment, "Progressed")
        if not self.config.replan:
            return
        seen = budget_in_flight(
            flight.budget,
            event.report,
            waited_s=event.now_s - flight.assignment.dispatched_at_s,
            received_bytes=event.received_bytes,
            window_s=self.config.download_window_s,
        )
        reason = moved(flight.budget, seen, self.config.replan_threshold)
        if reason:
            yield from self._replan(flight, seen, event, reason)

    def _replan(self, flight: Flight, seen: Budget, event: ev.Progressed, reason: str) -> Actions:
        """Make a new plan that keeps what has been received; the column under way counts as received."""
        config, assignment = self.config, flight.assignment
        left_s = assignment.deadline_at_s - event.now_s
        ahead = budget_ahead(
            seen,
            latency_s=event.report.latency_s,
            deadline_in_s=left_s if left_s >= 0 else math.inf,  # one that outlived its round has no hurry
            received_bytes=event.received_bytes,
            column_bytes=config.prices.download_bytes(event.received)
            + config.prices.merged_bytes(flight.plan.merged),
        )
        plan = config.method.replan(
            self.state.spectra[assignment.version],
            ahead,
            config.prices,
            event.received,
            standing(self.state.memory.get(assignment.client), self.state.stacked, assignment.version),
        )
        if isinstance(plan, Infeasible):
            if plan.reason == "memory":
                yield from self.core.recall(flight, "dropped", "infeasible: memory", "download")
                yield from self.pace.ended(event.now_s)
            return
        plan = with_merged(plan, flight.plan)
        self.state.change(replace(flight, plan=plan, budget=seen))
        if plan != flight.plan:
            yield ev.Replan(
                assignment.id, flight.plan, plan, seen, ahead, event.received, event.received_bytes, reason
            )

    def _downloaded(self, event: ev.Downloaded) -> Actions:
        flight = self.state.flight(event.assignment, "Downloaded")
        self.history.observe(flight.assignment.client, "download", event.size_bytes, event.duration_s)
        need = self.config.prices.memory_bytes(flight.plan.total, flight.plan.trained)
        if need > event.report.memory_bytes:
            here = ev.Progressed(
                event.now_s, event.assignment, event.size_bytes, flight.plan.total, event.report
            )
            seen = replace(flight.budget, memory_bytes=event.report.memory_bytes)
            yield from self._replan(flight, seen, here, "memory")
        kept = self.state.flights.get(event.assignment)
        if kept is not None:
            self.state.change(replace(kept, status="working"))

    def _uploaded(self, event: ev.Uploaded) -> Actions:
        flight = self.state.flight(event.assignment, "Uploaded")
        self.history.observe(flight.assignment.client, "upload", event.size_bytes, event.duration_s)
        yield from self.pace.uploaded(flight, event.now_s)

    def _transfer_cut(self, event: ev.TransferCut) -> Actions:
        self.history.observe(event.client, event.direction, event.size_bytes, event.duration_s)
        yield from ()

    def _dropped(self, event: ev.Dropped) -> Actions:
        flight = self.state.flight(event.assignment, "Dropped")
        yield from self.core.settle(flight, "dropped", event.reason, event.phase)
        yield from self.pace.ended(event.now_s)
