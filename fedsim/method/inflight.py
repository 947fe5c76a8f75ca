"""How does a plan follow its client? Budgets that move, streams that close, and memory that falls away.

Clients whose budgets moved at one instant are planned again together, one call for each version among them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fedsim.method import events as ev
from fedsim.method.bundle import Infeasible
from fedsim.method.core import Actions, Core
from fedsim.method.estimate import (
    NO_DEADLINE_S,
    at_close,
    budget_ahead,
    budget_in_flight,
    moved,
)
from fedsim.method.messages import Budget, DeviceReport, Phase, RankPlan
from fedsim.method.offering import stream_of
from fedsim.method.standing import standing, with_merged
from fedsim.method.state import Flight

Verdict = RankPlan | Infeasible


@dataclass(frozen=True, slots=True)
class _Change:
    """Why one client is planned again.

    Args:
        flight: Its assignment.
        seen: Its whole budget, as it is now.
        ahead: What of it is still to come.
        received: Columns that it has, or that are under way.
        received_bytes: Bytes of them that have arrived.
        reason: Cause for the record.
    """

    flight: Flight
    seen: Budget
    ahead: Budget
    received: tuple[int, ...]
    received_bytes: int
    reason: str


class InFlight:
    """Keeps the plans of clients that wait, download or train up to date.

    Args:
        core: State and steps of the server.
        ended: What the pacing does when an assignment has ended without an update.
    """

    def __init__(self, core: Core, ended: Callable[[float], Actions]) -> None:
        self.core = core
        self.ended = ended

    # --- while it waits or downloads --------------------------------------------------------------------

    def progressed(self, event: ev.Progressed) -> Actions:
        """One client tells how far it is."""
        yield from self._follow(event.now_s, [event])

    def reported(self, event: ev.Reported) -> Actions:
        """Several clients tell at the same instant how far they are."""
        yield from self._follow(event.now_s, event.reports)

    def _follow(self, now_s: float, reports: Sequence[ev.Progressed]) -> Actions:
        """Plan those again whose budgets have moved by more than the threshold."""
        changes = []
        for report in reports:
            flight = self.core.state.flight(report.assignment, "Progressed")
            if not self.core.config.replan:
                continue
            seen = self._seen(flight, report)
            reason = moved(flight.budget, seen, self.core.config.replan_threshold)
            if reason:
                changes.append(self._change(flight, seen, report, reason))
        yield from self._replan(now_s, changes)

    def _change(self, flight: Flight, seen: Budget, event: ev.Progressed, reason: str) -> _Change:
        ahead = self._ahead(flight, seen, event)
        return _Change(flight, seen, ahead, event.received, event.received_bytes, reason)

    def _seen(self, flight: Flight, event: ev.Progressed) -> Budget:
        """The whole budget of a client as it is now; nothing is guessed about the download of a stream."""
        report = event.report
        if self.core.config.progressive:
            return replace(flight.budget, memory_bytes=report.memory_bytes, flops=report.flops)
        return budget_in_flight(
            flight.budget,
            report,
            waited_s=event.now_s - flight.assignment.dispatched_at_s,
            received_bytes=event.received_bytes,
            window_s=self.core.config.planned_window_s,
        )

    def _ahead(self, flight: Flight, seen: Budget, event: ev.Progressed) -> Budget:
        """What of a budget is still to come; the column under way counts as received."""
        if self.core.config.progressive:
            return seen
        prices = self.core.config.prices
        return budget_ahead(
            seen,
            latency_s=event.report.latency_s,
            deadline_in_s=self._left_s(flight, event.now_s),
            received_bytes=event.received_bytes,
            column_bytes=prices.download_bytes(event.received) + prices.merged_bytes(flight.plan.merged),
        )

    def _left_s(self, flight: Flight, now_s: float) -> float:
        """Seconds until a plan wants to be done; one that outlived its round has no hurry."""
        margin_s = (self.core.config.pacing.deadline_s or 0.0) * self.core.config.safety_margin
        left_s = flight.assignment.deadline_at_s - now_s
        return max(left_s - margin_s, 0.0) if left_s >= 0 else math.inf

    def _replan(self, now_s: float, changes: Sequence[_Change]) -> Actions:
        for change, plan in zip(changes, self._plans(changes), strict=True):
            number = change.flight.assignment.id
            if number not in self.core.state.flights:
                continue  # its round ended with a client that was planned just before
            if not isinstance(plan, Infeasible):
                yield from self._take(change, plan)
            elif plan.reason == "memory":
                yield from self._drop(change.flight, now_s, "memory")

    def _plans(self, changes: Sequence[_Change]) -> list[Verdict]:
        """Plan clients again: all that started from one version in one call."""
        found: dict[int, Verdict] = {}
        for version in sorted({change.flight.assignment.version for change in changes}):
            mates = [change for change in changes if change.flight.assignment.version == version]
            plans = self._water_fill(version, mates)
            found |= {mate.flight.assignment.id: plan for mate, plan in zip(mates, plans, strict=True)}
        return [found[change.flight.assignment.id] for change in changes]

    def _water_fill(self, version: int, mates: Sequence[_Change]) -> list[Verdict]:
        config, state = self.core.config, self.core.state
        plans = config.method.replan(
            state.spectra[version],
            [mate.ahead for mate in mates],
            config.prices,
            [mate.received for mate in mates],
            [
                standing(state.memory.get(mate.flight.assignment.client), state.stacked, version)
                for mate in mates
            ],
        )
        return [
            plan if isinstance(plan, Infeasible) else with_merged(plan, mate.flight.plan)
            for plan, mate in zip(plans, mates, strict=True)
        ]

    def _take(self, change: _Change, plan: RankPlan) -> Actions:
        """Let a client follow its new plan."""
        flight, state = change.flight, self.core.state
        spectrum = state.spectra[flight.assignment.version]
        state.change(replace(flight, plan=plan, budget=change.seen))
        if plan != flight.plan:
            yield ev.Replan(
                flight.assignment.id,
                flight.plan,
                plan,
                change.seen,
                change.ahead,
                change.received,
                change.received_bytes,
                change.reason,
                stream_of(self.core.config, spectrum, plan, flight.closes_at_s),
            )

    def _drop(self, flight: Flight, now_s: float, reason: str) -> Actions:
        phase: Phase = "train" if flight.status == "working" else "download"
        yield from self.core.recall(flight, "dropped", f"infeasible: {reason}", phase)
        yield from self.ended(now_s)

    # --- when the download is over ----------------------------------------------------------------------

    def downloaded(self, flight: Flight, event: ev.Downloaded) -> Actions:
        """Make the plan final: what has come, and as much of it trained as memory and time allow now."""
        if event.received is not None:
            cause = "delivered" if event.received == flight.plan.total else "window"
            yield from self._fill(flight, event.now_s, event.received, event.report, cause)
        else:
            yield from self._fit_memory(flight, event)
        kept = self.core.state.flights.get(event.assignment)
        if kept is not None:
            self.core.state.change(kept.at("working"))

    def _fit_memory(self, flight: Flight, event: ev.Downloaded) -> Actions:
        """A whole delivery keeps its plan, unless the memory of this moment is too small for it."""
        need = self.core.config.prices.bill(flight.plan).memory_bytes
        if need <= event.report.memory_bytes:
            return
        here = ev.Progressed(event.now_s, event.assignment, event.size_bytes, flight.plan.total, event.report)
        seen = replace(flight.budget, memory_bytes=event.report.memory_bytes)
        yield from self._replan(event.now_s, [self._change(flight, seen, here, "memory")])

    def memory_fell(self, event: ev.MemoryFell) -> Actions:
        """A client has too little memory to train its plan: it begins again with fewer trained columns."""
        flight = self.core.state.flight(event.assignment, "MemoryFell")
        yield from self._fill(flight, event.now_s, flight.plan.total, event.report, "memory")

    def _fill(
        self, flight: Flight, now_s: float, received: tuple[int, ...], report: DeviceReport, reason: str
    ) -> Actions:
        """Train as much of what is there as memory and time allow; past the time, as memory allows.

        Where the time left is too short as estimated, the deadline decides.
        """
        ahead = at_close(flight.budget, report, deadline_in_s=self._left_s(flight, now_s))
        size = self.core.config.prices.download_bytes(received)
        change = _Change(flight, ahead, ahead, received, size, reason)
        (plan,) = self._plans([change])
        if isinstance(plan, Infeasible) and plan.reason != "memory":
            later = replace(ahead, seconds=NO_DEADLINE_S)
            change = replace(change, seen=later, ahead=later)
            (plan,) = self._plans([change])
        if isinstance(plan, Infeasible):
            yield from self._drop(flight, now_s, plan.reason)
        else:
            yield from self._take(change, plan)
