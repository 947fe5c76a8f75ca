"""What do all pacings share? Asking clients, ending assignments, combining updates, letting versions go.

`fedsim.method.rounds` and `fedsim.method.buffer` decide when; this module knows how, and keeps the promise
that every assignment is settled exactly once.
"""

import math
from collections.abc import Generator, Mapping, Sequence
from typing import Literal, Protocol

import numpy as np

from fedsim.method import events as ev
from fedsim.method.bundle import ClientMemory, Infeasible
from fedsim.method.config import ServerConfig
from fedsim.method.estimate import LinkHistory
from fedsim.method.messages import Assignment, Budget, DeviceReport, Phase, RankPlan
from fedsim.method.offering import first_stream, planned_budget
from fedsim.method.pacing import Mixing
from fedsim.method.queue import Queue
from fedsim.method.select import Draw, Occasion
from fedsim.method.standing import stack_of, standing
from fedsim.method.state import Flight, ServerState, Stage

Actions = Generator[ev.Action, None, None]
Found = list[tuple[DeviceReport, Budget, RankPlan]]

NOBODY_COMES = "no device will come online any more"


class Pace(Protocol):
    """When does the server do what? One of `fedsim.method.rounds` and `fedsim.method.buffer`."""

    stages: Mapping[str, frozenset[Stage]]
    """Event name -> stages in which it may come."""

    def open(self, now_s: float) -> Actions:
        """Go on after the start, an evaluation or a closed round."""
        ...

    def fleet_seen(self, event: ev.FleetSeen) -> Actions:
        """The server sees who is online."""
        ...

    def fleet_gone(self, event: ev.FleetGone) -> Actions:
        """Nobody comes online any more."""
        ...

    def uploaded(self, flight: Flight, now_s: float) -> Actions:
        """An update has come."""
        ...

    def ended(self, now_s: float) -> Actions:
        """An assignment has ended without an update."""
        ...

    def deadline_passed(self, event: ev.DeadlinePassed) -> Actions:
        """A deadline has fired."""
        ...


class Core:
    """The state of one server and the steps that all pacings share."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.state = ServerState()
        self.history = LinkHistory(config.rates)
        self.draw = config.select if isinstance(config.select, Draw) else None

    # --- asking clients ---------------------------------------------------------------------------------

    def look(self, now_s: float) -> Actions:
        """Look at the fleet at this instant, once however many reasons there are."""
        if self.state.look_at_s != now_s:
            self.state.look_at_s = now_s
            yield ev.LookAtFleet(now_s)

    def await_arrival(self) -> Actions:
        """Look at the fleet when the next device comes online."""
        if not self.state.awaits_arrival:
            self.state.awaits_arrival = True
            yield ev.LookAtFleet(None)

    def saw(self, now_s: float) -> None:
        """One of the looks that were asked for has been answered."""
        if self.state.look_at_s == now_s:
            self.state.look_at_s = None
        else:
            self.state.awaits_arrival = False

    def ask(
        self, fleet: ev.FleetView, seats: int, attempt: int, skip: frozenset[int] = frozenset()
    ) -> Generator[ev.Action, None, Found]:
        """Find clients that can carry a plan, in the order of the selection rule.

        Args:
            fleet: Who is there.
            seats: How many are wanted.
            attempt: Number of the round, or of the look, for the rule's stream.
            skip: Clients that are not asked.

        Returns:
            What each reported, its budget and its plan; fewer than wanted where there are no more.
        """
        state, select = self.state, self.config.select
        if select.counts_presence:
            state.experience.look(fleet.online(), self._clients_at_work())
        occasion = Occasion(state.version, attempt, seats, 2 * seats, state.experience)
        queue = Queue(fleet, select, self.draw, occasion, skip)
        found: Found = []
        while len(found) < seats and (asked := queue.next(seats - len(found))):
            found += yield from self._check_in(fleet, asked)
        return found

    def _clients_at_work(self) -> np.ndarray:
        flights = self.state.flights.values()
        return np.array(
            sorted({flight.assignment.client for flight in flights if flight.status != "arrived"}),
            dtype=np.int64,
        )

    def _check_in(self, fleet: ev.FleetView, asked: Sequence[int]) -> Generator[ev.Action, None, Found]:
        """Price a plan for every device that is asked; decline those that can carry none."""
        config, state = self.config, self.state
        reports = self._worth_asking([fleet.report(client) for client in asked])
        budgets = [planned_budget(config, self.history, report) for report in reports]
        standings = [
            standing(state.memory.get(report.client), state.stacked, state.version) for report in reports
        ]
        spectrum = state.spectra[state.version]
        plans = config.method.allocate(spectrum, budgets, config.prices, None, standings)
        found = []
        for report, budget_, plan in zip(reports, budgets, plans, strict=True):
            if not isinstance(plan, Infeasible):
                found.append((report, budget_, plan))
            elif report.client not in state.declined:
                yield from self._decline(report, plan)
        return found

    def _worth_asking(self, reports: Sequence[DeviceReport]) -> list[DeviceReport]:
        """Leave out devices that were too small for the base model and have not grown since."""
        state, kept = self.state, []
        for report in reports:
            known = state.unfit.get(report.client)
            if known and report.memory_bytes <= known.memory_bytes and report.flops <= known.flops:
                state.declined.add(report.client)
            else:
                kept.append(report)
        return kept

    def _decline(self, report: DeviceReport, verdict: Infeasible) -> Actions:
        self.state.declined.add(report.client)
        if verdict.reason == "base":
            self.state.unfit[report.client] = report
        yield ev.Decline(report.client, f"infeasible: {verdict.reason}")

    def dispatch(self, now_s: float, round_number: int, found: Found) -> Actions:
        """Send assignments to clients; with a deadline, where the pacing has one.

        Args:
            now_s: Virtual time.
            round_number: The round that they belong to, which the deadline will name.
            found: As from `ask`.
        """
        deadline_s = self.config.pacing.deadline_s
        deadline_at_s = np.inf if deadline_s is None else now_s + deadline_s
        if deadline_s is not None:
            yield ev.SetDeadline(round_number, deadline_at_s)
        for report, budget_, plan in found:
            assignment = self._assignment(now_s, deadline_at_s, report.client, plan)
            spectrum = self.state.spectra[self.state.version]
            stream = first_stream(self.config, spectrum, now_s, report, budget_, plan)
            closes_at_s = math.inf if stream is None else stream.closes_at_s
            examples = report.num_examples
            self.state.launch(
                Flight(
                    assignment,
                    plan,
                    budget_,
                    round_number,
                    examples,
                    status="downloading",
                    closes_at_s=closes_at_s,
                )
            )
            self.state.experience.ask(report.client)
            yield ev.Dispatch(assignment, budget_, stream)

    def _assignment(self, now_s: float, deadline_at_s: float, client: int, plan: RankPlan) -> Assignment:
        config, state = self.config, self.state
        number = state.next_assignment
        state.next_assignment += 1
        return Assignment(
            id=number,
            client=client,
            version=state.version,
            offered=plan,
            steps=config.steps,
            seed=config.seeds.seed("train", client, number),
            gate=config.method.gate(state.memory.get(client), state.version),
            learning_rate=config.learning_rate(state.version),
            dispatched_at_s=now_s,
            deadline_at_s=deadline_at_s,
        )

    # --- combining updates ------------------------------------------------------------------------------

    def arrive(self, flight: Flight, now_s: float) -> None:
        """Keep an update until it is combined."""
        self.state.change(flight.at("arrived", now_s))

    def combine(self, flights: Sequence[Flight], minimum: int) -> Actions:
        """Ask for the next version from these flights, by ascending assignment id.

        Weights are shares of the examples; staleness discounts them without being renormalised.
        """
        state = self.state
        state.stage = "aggregating"
        state.combining = tuple(flight.assignment.id for flight in flights)
        examples = sum(flight.num_examples for flight in flights)
        mixing = self.config.pacing.mixing
        staleness = [state.version - flight.assignment.version for flight in flights]
        yield ev.Aggregate(
            version=state.version,
            assignments=state.combining,
            weights=tuple(flight.num_examples / examples for flight in flights),
            minimum=minimum,
            staleness=tuple(staleness) if mixing else (),
            discounts=tuple(mixing.discount(tau) for tau in staleness) if mixing else (),
            damping=tuple(map(mixing.damping, staleness)) if mixing and mixing.subspace else (),
        )

    def aggregated(self, event: ev.Aggregated) -> Actions:
        """Settle what was combined, and let go of what the new version makes too old."""
        state = self.state
        made = event.version > state.version
        learnt: list[int] = []
        used: list[RankPlan] = []
        for number in state.combining:
            flight = state.flights[number]
            if number in event.failed:
                yield from self.settle(flight, "failed", event.failed[number])
            elif made:
                self._remember(flight, event)
                learnt.append(flight.assignment.client)
                used.append(flight.plan)
                yield from self.settle(flight, "aggregated", "")
            else:
                yield from self.settle(flight, "discarded", "too few updates were left after failures")
        if made:
            state.experience.close_round(np.array(learnt, dtype=np.int64))
            state.stacked[event.version] = stack_of(state.stacked.get(state.version, ()), used)
        state.combining = ()
        state.version = event.version
        state.spectra[event.version] = event.spectrum
        yield from self._release_unreferenced()
        yield from self._doom(self.config.pacing.mixing)
        yield from self.close_round("aggregated" if made else "discarded")

    def _remember(self, flight: Flight, event: ev.Aggregated) -> None:
        assignment, arrived_at_s = flight.assignment, flight.arrived_at_s
        if assignment.id in event.alignments:
            before = self.state.memory.get(assignment.client)
            rank = event.pruned.get(assignment.id, None if before is None else before.rank)
            alignment = event.alignments[assignment.id]
            self.state.memory[assignment.client] = ClientMemory(alignment, assignment.version, rank)
        self.state.experience.learn(
            assignment.client,
            round_number=self.state.round,
            loss=event.losses.get(assignment.id),
            examples=flight.num_examples,
            duration_s=(event.now_s if arrived_at_s is None else arrived_at_s) - assignment.dispatched_at_s,
        )

    def _release_unreferenced(self) -> Actions:
        state = self.state
        for version in [known for known in state.spectra if not state.referenced(known)]:
            del state.spectra[version]
            yield ev.Release(version)

    def _doom(self, mixing: Mixing | None) -> Actions:
        """End every assignment whose update could only come too late to count."""
        if mixing is None or mixing.max_staleness is None:
            return
        limit = mixing.max_staleness
        for flight in self.state.older_than(self.state.version - limit):
            yield from self.recall(flight, "stale", f"more than {limit} versions behind")

    def close_round(self, result: Literal["aggregated", "discarded"]) -> Actions:
        """End a round; `Server` goes on from there."""
        state = self.state
        yield ev.CloseRound(state.round, state.version, result)
        state.round += 1
        state.measure = result == "aggregated" and state.version % self.config.evaluate_every == 0
        state.stage = "between"

    # --- the end of an assignment -----------------------------------------------------------------------

    def is_usable(self, flight: Flight, received_bytes: int) -> bool:
        """Whether what has come of an update counts: one column at least, whichever layer comes first."""
        column_bytes = [
            int(size)
            for size, trained in zip(self.config.prices.up_bytes, flight.plan.trained, strict=True)
            if trained
        ]
        return self.config.partial_upload and received_bytes >= max(column_bytes)

    def close_uploads(self, event: ev.DeadlinePassed, *, in_time: bool) -> Actions:
        """End those of a round that are still at work; parts of updates count where they are in time."""
        for flight in self.state.of_round(event.round, "downloading", "working"):
            size = event.received_bytes.get(flight.assignment.id, 0)
            if in_time and size and self.is_usable(flight, size):
                yield ev.TakePart(flight.assignment.id, "deadline")
                self.arrive(flight, event.now_s)
            else:
                yield from self.recall(flight, "timed_out", "deadline")

    def recall(self, flight: Flight, outcome: ev.Outcome, reason: str, phase: Phase | None = None) -> Actions:
        """End an assignment, and tell the client if it is still at work."""
        if flight.status != "arrived":
            yield ev.Recall(flight.assignment.id)
        yield from self.settle(flight, outcome, reason, phase)

    def settle(self, flight: Flight, outcome: ev.Outcome, reason: str, phase: Phase | None = None) -> Actions:
        """Say how an assignment has ended; its version is let go with its last holder."""
        state, version = self.state, flight.assignment.version
        state.end(flight.assignment.id)
        yield ev.Settle(flight.assignment.id, outcome, phase, reason)
        if version in state.spectra and not state.referenced(version):
            del state.spectra[version]
            yield ev.Release(version)
