"""How do rounds go? A cohort is asked; its quorum, its deadline or its last client closes the round.

In semi-synchronous rounds nobody is told to stop: updates that come after their round enter the next
aggregate, discounted by their staleness.
"""

from fedsim.method import events as ev
from fedsim.method.core import NOBODY_COMES, Actions, Core
from fedsim.method.pacing import SyncPacing
from fedsim.method.state import LEGAL_STAGES, MIXED_STAGES, Flight


class Rounds:
    """Synchronous and semi-synchronous pacing. Satisfies `fedsim.method.core.Pace`."""

    def __init__(self, core: Core, pacing: SyncPacing) -> None:
        self.core = core
        self.pacing = pacing
        self.stages = LEGAL_STAGES if pacing.late is None else MIXED_STAGES

    def open(self, now_s: float) -> Actions:
        """Look for a cohort."""
        self.core.state.stage = "opening"
        self.core.state.declined = set()
        yield from self.core.look(now_s)

    def fleet_seen(self, event: ev.FleetSeen) -> Actions:
        """Ask a cohort, or wait for more devices."""
        core, state = self.core, self.core.state
        core.saw(event.now_s)
        if state.stage != "opening":
            return
        found = yield from core.ask(event.fleet, self.pacing.seats, state.round)
        carried = 0 if self.pacing.late is None else len(state.flights)
        if not found or len(found) + carried < self.pacing.min_updates:
            yield from core.await_arrival()
            return
        state.stage = "collecting"
        yield from core.dispatch(event.now_s, state.round, found)

    def fleet_gone(self, _: ev.FleetGone) -> Actions:
        """End the run, unless somebody is at work who may be asked again."""
        state = self.core.state
        state.awaits_arrival = False
        if state.stage == "opening" and not (self.pacing.late and state.at_work):
            state.stopping = NOBODY_COMES
            state.stage = "between"
        yield from ()

    def uploaded(self, flight: Flight, now_s: float) -> Actions:
        """Keep an update of the open round; a late one is lost, or carried over."""
        core, state = self.core, self.core.state
        in_time = flight.round == state.round and state.stage == "collecting"
        if not in_time and self.pacing.late is None:
            yield from core.settle(flight, "late", "its round had closed")
            return
        core.arrive(flight, now_s)
        yield from self.ended(now_s)

    def ended(self, now_s: float) -> Actions:
        """Close the round if that was the last to wait for; ask those who are free if it has not begun."""
        if self.core.state.stage == "opening" and self.pacing.late is not None:
            yield from self.core.look(now_s)
        else:
            yield from self._judge()

    def deadline_passed(self, event: ev.DeadlinePassed) -> Actions:
        """Close the round; those still at work have failed, or go on."""
        core, state = self.core, self.core.state
        if self.pacing.late is None:
            in_time = event.round == state.round and state.stage == "collecting"
            yield from core.close_uploads(event, in_time=in_time)
        if event.round == state.round:
            yield from self._judge(deadline_passed=True)

    def _judge(self, *, deadline_passed: bool = False) -> Actions:
        """Close the open round if its pacing says so."""
        state = self.core.state
        if state.stage != "collecting":
            return
        arrived = state.count(state.round, "arrived")
        verdict = self.pacing.verdict(
            arrived,
            state.count(state.round, "downloading", "working"),
            deadline_passed=deadline_passed,
            carried=len(state.arrived) - arrived,
        )
        if verdict == "aggregate":
            yield from self._aggregate()
        elif verdict == "discard":
            yield from self._discard()

    def _aggregate(self) -> Actions:
        core, state = self.core, self.core.state
        if self.pacing.surplus == "recall" and self.pacing.late is None:
            for flight in state.of_round(state.round, "downloading", "working"):
                yield from core.recall(flight, "cancelled", "surplus: the quorum is full")
        flights = [state.flights[number] for number in sorted(state.arrived)]
        yield from core.combine(flights, self.pacing.min_updates)

    def _discard(self) -> Actions:
        core, state = self.core, self.core.state
        if self.pacing.late is None:
            for flight in state.of_round(state.round, "downloading", "working"):
                yield from core.recall(flight, "cancelled", "its round is below the minimum")
            for flight in state.of_round(state.round, "arrived"):
                yield from core.settle(flight, "discarded", "its round stayed below the minimum")
        yield from core.close_round("discarded")
