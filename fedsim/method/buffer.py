"""How does a buffer go? Clients are kept at work; whenever enough updates have come they make a version.

Source:
    Nguyen et al., "Federated learning with buffered asynchronous aggregation", 2022, arXiv 2106.06639.
    Differs: weights are shares of the examples within the buffer, times the staleness weight; the paper
    counts every client alike.
"""

from itertools import islice

from fedsim.method import events as ev
from fedsim.method.core import NOBODY_COMES, Actions, Core
from fedsim.method.pacing import BufferedPacing
from fedsim.method.state import MIXED_STAGES, Flight


class Buffer:
    """Buffered and plain asynchronous pacing. Satisfies `fedsim.method.core.Pace`."""

    stages = MIXED_STAGES

    def __init__(self, core: Core, pacing: BufferedPacing) -> None:
        self.core = core
        self.pacing = pacing

    def open(self, now_s: float) -> Actions:
        """Go on collecting; a device that was declined is asked again at the new version."""
        self.core.state.stage = "collecting"
        self.core.state.declined = set()
        yield from self._advance(now_s)

    def fleet_seen(self, event: ev.FleetSeen) -> Actions:
        """Fill free places; wait for an arrival if some stay free."""
        core, state = self.core, self.core.state
        core.saw(event.now_s)
        if state.stage != "collecting":
            return
        free = self.pacing.concurrency - state.at_work
        if free <= 0:
            return
        # While somebody is at work there will be another version, at which the declined are asked again.
        skip = frozenset(state.declined) if state.at_work else frozenset()
        found = yield from core.ask(event.fleet, free, state.next_wave, skip)
        if found:
            yield from core.dispatch(event.now_s, state.next_wave, found)
            state.next_wave += 1
        if len(found) < free:
            yield from core.await_arrival()

    def fleet_gone(self, _: ev.FleetGone) -> Actions:
        """End the run, unless somebody is at work who may be asked again."""
        state = self.core.state
        state.awaits_arrival = False
        if state.stage == "collecting" and not state.at_work:
            state.stopping = NOBODY_COMES
            state.stage = "between"
        yield from ()

    def uploaded(self, flight: Flight, now_s: float) -> Actions:
        """Put an update into the buffer; its client is free."""
        self.core.arrive(flight, now_s)
        yield from self._advance(now_s)

    def ended(self, now_s: float) -> Actions:
        """A place has become free."""
        yield from self._advance(now_s)

    def deadline_passed(self, event: ev.DeadlinePassed) -> Actions:
        """Time is up for those of one look that are still at work."""
        yield from self.core.close_uploads(event, in_time=True)
        yield from self._advance(event.now_s)

    def _advance(self, now_s: float) -> Actions:
        """Make a version if the buffer is full; otherwise see who could fill a free place.

        A version comes first, so that whoever is asked at this instant starts from the newest.
        """
        core, state = self.core, self.core.state
        if state.stage != "collecting":
            return
        if len(state.arrived) >= self.pacing.buffer_size:
            first = sorted(islice(state.arrived, self.pacing.buffer_size))
            yield from core.combine([state.flights[number] for number in first], self.pacing.min_updates)
        elif state.at_work < self.pacing.concurrency:
            yield from core.look(now_s)
