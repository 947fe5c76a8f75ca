"""What does the server decide? A state machine without input or output: `handle(event) -> actions`.

SimPy, a unit test and a replay are three callers of it. It never awaits, reads no clock and touches no file;
it holds ids, ranks and spectra, never tensors. Every assignment is settled exactly once.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np

from fedsim.errors import ProtocolError
from fedsim.method import events as ev
from fedsim.method.bundle import ClientMemory, Infeasible, Method
from fedsim.method.estimate import LinkHistory, RateRule, budget, budget_ahead, budget_in_flight, moved
from fedsim.method.messages import Assignment, Budget, DeviceReport, Phase, RankPlan
from fedsim.method.pacing import SyncPacing
from fedsim.method.select import Select
from fedsim.method.state import LEGAL_STAGES, Flight, ServerState
from fedsim.seeds import Seeds
from fedsim.world.cost import Prices

Actions = Generator[ev.Action, None, None]


@dataclass(frozen=True, slots=True)
class StopRule:
    """When the run ends, apart from its limit of virtual time.

    Args:
        rounds: After this many rounds, with or without a version; None for no limit.
        target_loss: As soon as an evaluation is at or below this loss; None for no target.
    """

    rounds: int | None = None
    target_loss: float | None = None


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Everything that the server is told once.

    Args:
        method: The method's decisions.
        pacing: When to aggregate.
        select: Who is asked.
        prices: What an assignment costs.
        rates: How links are estimated.
        seeds: Streams of the run.
        steps: Local steps per assignment.
        learning_rate: Version -> learning rate.
        download_window_s: Seconds in which the download should end.
        replan: Whether plans follow budgets that move while a client waits or downloads.
        replan_threshold: Relative move of a budget that makes a new plan.
        evaluate_every: Versions between evaluations.
        stop: When the run ends.
    """

    method: Method
    pacing: SyncPacing
    select: Select
    prices: Prices
    rates: RateRule
    seeds: Seeds
    steps: int
    learning_rate: Callable[[int], float]
    download_window_s: float
    replan: bool
    replan_threshold: float
    evaluate_every: int
    stop: StopRule


class Server:
    """The federated server. Feed it events in the order of virtual time; carry out what it asks for."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.state = ServerState()
        self.history = LinkHistory(config.rates)
        self._rules: dict[type, Callable[[Any], Actions]] = {
            ev.Opened: self._opened,
            ev.FleetSeen: self._fleet_seen,
            ev.FleetGone: self._fleet_gone,
            ev.TimeUp: self._time_up,
            ev.Progressed: self._progressed,
            ev.Downloaded: self._downloaded,
            ev.Uploaded: self._uploaded,
            ev.TransferCut: self._transfer_cut,
            ev.Dropped: self._dropped,
            ev.DeadlinePassed: self._deadline_passed,
            ev.Aggregated: self._aggregated,
            ev.Evaluated: self._evaluated,
        }

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
        if self.state.stage not in LEGAL_STAGES.get(name, frozenset({self.state.stage})):
            raise ProtocolError(f"{name} while the server is {self.state.stage}")
        if self.state.stage == "stopped":
            raise ProtocolError(f"{name} after the run has stopped")
        return tuple(self._rules[type(event)](event))

    # --- the run ----------------------------------------------------------------------------------------

    def _opened(self, event: ev.Opened) -> Actions:
        self.state.spectra[0] = event.spectrum
        yield from self._evaluate()

    def _evaluate(self) -> Actions:
        self.state.stage = "evaluating"
        yield ev.Evaluate(self.state.version)

    def _evaluated(self, event: ev.Evaluated) -> Actions:
        state, target, loss = self.state, self.config.stop.target_loss, event.evaluation.loss
        state.evaluated = event.evaluation.version
        if state.stopping is None and target is not None and loss is not None and loss <= target:
            state.stopping = f"the loss reached its target of {target:g}"
        yield from self._next_round(event.now_s)

    def _next_round(self, now_s: float) -> Actions:
        rounds = self.config.stop.rounds
        if self.state.stopping is None and rounds is not None and self.state.round >= rounds:
            self.state.stopping = f"{rounds} rounds are over"
        if self.state.stopping is not None:
            yield from self._finish()
            return
        self.state.stage = "opening"
        self.state.declined = set()
        yield ev.LookAtFleet(now_s)

    def _time_up(self, event: ev.TimeUp) -> Actions:
        self.state.stopping = self.state.stopping or f"virtual time is over at {event.now_s:g} s"
        if self.state.stage in ("opening", "collecting"):
            yield from self._finish()

    def _fleet_gone(self, _: ev.FleetGone) -> Actions:
        self.state.stopping = "no device will come online any more"
        yield from self._finish()

    def _finish(self) -> Actions:
        for flight in list(self.state.flights.values()):
            yield from self._recall(flight, "cancelled", "end of run")
        if self.state.evaluated < self.state.version:
            yield from self._evaluate()
            return
        self.state.stage = "stopped"
        yield ev.Stop(cast("str", self.state.stopping))

    # --- opening a round --------------------------------------------------------------------------------

    def _fleet_seen(self, event: ev.FleetSeen) -> Actions:
        state, pacing = self.state, self.config.pacing
        queue = self.config.select(event.fleet.online(), state.version, state.round)
        found: list[tuple[DeviceReport, Budget, RankPlan]] = []
        while len(queue) and len(found) < pacing.seats:
            seats = pacing.seats - len(found)
            asked, queue = queue[:seats], queue[seats:]
            found += yield from self._check_in(event.fleet, asked)
        if len(found) < pacing.min_updates:
            yield ev.LookAtFleet(None)
            return
        state.stage = "collecting"
        deadline_at_s = np.inf if pacing.deadline_s is None else event.now_s + pacing.deadline_s
        if pacing.deadline_s is not None:
            yield ev.SetDeadline(state.round, deadline_at_s)
        for report, budget_, plan in found:
            yield self._dispatch(event.now_s, deadline_at_s, report, budget_, plan)

    def _check_in(
        self, fleet: ev.FleetView, asked: np.ndarray
    ) -> Generator[ev.Action, None, list[tuple[DeviceReport, Budget, RankPlan]]]:
        """Price a plan for every device that is asked; decline those that can carry none."""
        config, state = self.config, self.state
        reports = [fleet.report(int(client)) for client in asked]
        budgets = [self._budget(report) for report in reports]
        plans = config.method.allocate(state.spectra[state.version], budgets, config.prices, None)
        found = []
        for report, budget_, plan in zip(reports, budgets, plans, strict=True):
            if isinstance(plan, Infeasible):
                if report.client not in state.declined:
                    state.declined.add(report.client)
                    yield ev.Decline(report.client, f"infeasible: {plan.reason}")
            else:
                found.append((report, budget_, plan))
        return found

    def _budget(self, report: DeviceReport) -> Budget:
        return budget(
            report,
            self.history,
            window_s=self.config.download_window_s,
            deadline_in_s=self.config.pacing.deadline_s,
        )

    def _dispatch(
        self, now_s: float, deadline_at_s: float, report: DeviceReport, budget_: Budget, plan: RankPlan
    ) -> ev.Dispatch:
        config, state = self.config, self.state
        number = state.next_assignment
        state.next_assignment += 1
        assignment = Assignment(
            id=number,
            client=report.client,
            version=state.version,
            offered=plan,
            steps=config.steps,
            seed=config.seeds.seed("train", report.client, number),
            gate=config.method.gate(state.memory.get(report.client), state.version),
            learning_rate=config.learning_rate(state.version),
            dispatched_at_s=now_s,
            deadline_at_s=deadline_at_s,
        )
        state.flights[number] = Flight(
            assignment, plan, budget_, state.round, report.num_examples, status="downloading"
        )
        return ev.Dispatch(assignment, budget_)

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
        ahead = budget_ahead(
            seen,
            latency_s=event.report.latency_s,
            deadline_in_s=assignment.deadline_at_s - event.now_s,
            received_bytes=event.received_bytes,
            column_bytes=config.prices.download_bytes(event.received),
        )
        plan = config.method.replan(
            self.state.spectra[assignment.version], ahead, config.prices, event.received
        )
        if isinstance(plan, Infeasible):
            if plan.reason == "memory":
                yield from self._recall(flight, "dropped", "infeasible: memory", "download")
                yield from self._judge(event.now_s)
            return
        self.state.flights[assignment.id] = replace(flight, plan=plan, budget=seen)
        if plan != flight.plan:
            yield ev.Replan(assignment.id, flight.plan, plan, seen, reason)

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
            self.state.flights[event.assignment] = replace(kept, status="working")

    def _uploaded(self, event: ev.Uploaded) -> Actions:
        flight = self.state.flight(event.assignment, "Uploaded")
        self.history.observe(flight.assignment.client, "upload", event.size_bytes, event.duration_s)
        if flight.round != self.state.round or self.state.stage != "collecting":
            yield from self._settle(flight, "late", "its round had closed")
            return
        self.state.flights[event.assignment] = replace(flight, status="arrived")
        yield from self._judge(event.now_s)

    def _transfer_cut(self, event: ev.TransferCut) -> Actions:
        self.history.observe(event.client, event.direction, event.size_bytes, event.duration_s)
        yield from ()

    def _dropped(self, event: ev.Dropped) -> Actions:
        flight = self.state.flight(event.assignment, "Dropped")
        yield from self._settle(flight, "dropped", event.reason, event.phase)
        yield from self._judge(event.now_s)

    # --- closing a round --------------------------------------------------------------------------------

    def _deadline_passed(self, event: ev.DeadlinePassed) -> Actions:
        for flight in self.state.of_round(event.round, "downloading", "working"):
            yield from self._recall(flight, "timed_out", "deadline")
        if event.round == self.state.round:
            yield from self._judge(event.now_s, deadline_passed=True)

    def _judge(self, now_s: float, *, deadline_passed: bool = False) -> Actions:
        """Close the open round if its pacing says so."""
        state = self.state
        if state.stage != "collecting":
            return
        arrived = state.of_round(state.round, "arrived")
        at_work = state.of_round(state.round, "downloading", "working")
        verdict = self.config.pacing.verdict(len(arrived), len(at_work), deadline_passed=deadline_passed)
        if verdict == "wait":
            return
        if verdict == "aggregate":
            yield from self._aggregate(arrived, at_work)
        else:
            yield from self._discard(now_s, arrived, at_work)

    def _aggregate(self, arrived: list[Flight], at_work: list[Flight]) -> Actions:
        if self.config.pacing.surplus == "recall":
            for flight in at_work:
                yield from self._recall(flight, "cancelled", "surplus: the quorum is full")
        self.state.stage = "aggregating"
        examples = sum(flight.num_examples for flight in arrived)
        yield ev.Aggregate(
            version=self.state.version,
            assignments=tuple(flight.assignment.id for flight in arrived),
            weights=tuple(flight.num_examples / examples for flight in arrived),
            minimum=self.config.pacing.min_updates,
        )

    def _discard(self, now_s: float, arrived: list[Flight], at_work: list[Flight]) -> Actions:
        for flight in at_work:
            yield from self._recall(flight, "cancelled", "its round is below the minimum")
        for flight in arrived:
            yield from self._settle(flight, "discarded", "its round stayed below the minimum")
        yield from self._close_round(now_s, "discarded")

    def _aggregated(self, event: ev.Aggregated) -> Actions:
        state = self.state
        made = event.version > state.version
        for flight in state.of_round(state.round, "arrived"):
            number = flight.assignment.id
            if number in event.failed:
                yield from self._settle(flight, "failed", event.failed[number])
            elif made:
                self._remember(flight, event.alignments)
                yield from self._settle(flight, "aggregated", "")
            else:
                yield from self._settle(flight, "discarded", "too few updates were left after failures")
        state.version = event.version
        state.spectra[event.version] = event.spectrum
        yield from self._release()
        yield from self._close_round(event.now_s, "aggregated" if made else "discarded")

    def _remember(self, flight: Flight, alignments: Mapping[int, float]) -> None:
        assignment = flight.assignment
        if assignment.id in alignments:
            self.state.memory[assignment.client] = ClientMemory(alignments[assignment.id], assignment.version)

    def _release(self) -> Actions:
        state = self.state
        for version in [known for known in state.spectra if not state.referenced(known)]:
            del state.spectra[version]
            yield ev.Release(version)

    def _close_round(self, now_s: float, result: Literal["aggregated", "discarded"]) -> Actions:
        state = self.state
        yield ev.CloseRound(state.round, state.version, result)
        state.round += 1
        due = result == "aggregated" and state.version % self.config.evaluate_every == 0
        if due and state.stopping is None:
            yield from self._evaluate()
        else:
            yield from self._next_round(now_s)

    # --- the end of an assignment -----------------------------------------------------------------------

    def _recall(
        self, flight: Flight, outcome: ev.Outcome, reason: str, phase: Phase | None = None
    ) -> Actions:
        if flight.status != "arrived":
            yield ev.Recall(flight.assignment.id)
        yield from self._settle(flight, outcome, reason, phase)

    def _settle(
        self, flight: Flight, outcome: ev.Outcome, reason: str, phase: Phase | None = None
    ) -> Actions:
        del self.state.flights[flight.assignment.id]
        yield ev.Settle(flight.assignment.id, outcome, phase, reason)
