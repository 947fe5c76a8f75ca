"""Where does real work meet virtual time? Training, combining and measuring are started here, and joined.

Updates are trained when an aggregation asks for them, or ahead of that where the configuration says so; the
record is the same. A version may be measured while the next one is trained: its line keeps its place.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import simpy

from fedsim.errors import SimulationError
from fedsim.method import events as ev
from fedsim.method.messages import Evaluation, TrainingFailure, TrainRequest, Update, UploadCut
from fedsim.sim.counted import as_counted
from fedsim.sim.driver_config import DriverConfig, RealWork
from fedsim.sim.executor import Combined
from fedsim.sim.foresight import surely_arrives
from fedsim.sim.recording import Scribe
from fedsim.sim.timeline import Timeline, Work
from fedsim.sim.trip import Trip
from fedsim.world.cost import Prices

Results = Sequence[Update | TrainingFailure]
Process = Generator[simpy.Event, Any, None]


@dataclass(slots=True)
class Workshop:
    """Starts real work and tells the server what came of it.

    Args:
        timeline: Virtual time, which waits for work that is joined.
        work: Who trains, combines and measures.
        scribe: Writes the record.
        config: When work is done.
        prices: What a plan costs.
        feed: Tells the server.
        shares_uploads: Whether others may slow an upload down, so that its end cannot be foreseen.
    """

    timeline: Timeline
    work: RealWork
    scribe: Scribe
    config: DriverConfig
    prices: Prices
    feed: Callable[[ev.Event], None]
    shares_uploads: bool
    _requests: dict[int, TrainRequest] = field(default_factory=dict)
    _eager: dict[int, Work[Results]] = field(default_factory=dict)
    _aside: Work[Evaluation] | None = None

    def begin(self, trip: Trip) -> None:
        """Take note of what a client begins to train; it may begin again with a smaller plan."""
        self._requests[trip.assignment.id] = TrainRequest(trip.assignment, trip.plan)
        if self.config.on_memory_drop == "drop":
            self._prefetch(trip, is_trained=False)

    def finish(self, trip: Trip) -> None:
        """Take note that a client has trained: only now is its plan final where memory may fall."""
        if self.config.on_memory_drop == "shrink":
            self._prefetch(trip, is_trained=True)

    def forget(self, assignment: int) -> None:
        """Let go of an assignment that has ended."""
        self._requests.pop(assignment, None)
        self._eager.pop(assignment, None)

    def close(self) -> None:
        """Tell of a measurement that was still going on when the run stopped."""
        if self._aside is not None:
            self.scribe.fill_place(self._aside.result())

    def _prefetch(self, trip: Trip, *, is_trained: bool) -> None:
        """Train before anybody asks for it, as far as the configuration goes."""
        ahead = self.config.prefetch
        if ahead == "speculative" or (
            ahead == "certain" and self._surely_arrives(trip, is_trained=is_trained)
        ):
            number = trip.assignment.id
            self._eager[number] = self.timeline.start(self.work.executor.train([self._requests[number]]))

    def _surely_arrives(self, trip: Trip, *, is_trained: bool) -> bool:
        now_s = self.timeline.now_s
        return not self.shares_uploads and surely_arrives(trip, self.prices, now_s, is_trained=is_trained)

    # --- combining --------------------------------------------------------------------------------------

    def aggregate(self, action: ev.Aggregate, cuts: Mapping[int, UploadCut]) -> None:
        """Combine updates into the next version.

        Args:
            action: What the server asks for.
            cuts: Assignment -> where its upload ended, where it did not come whole.
        """
        self.timeline.clock.process(self._aggregation(action, cuts))

    def _aggregation(self, action: ev.Aggregate, cuts: Mapping[int, UploadCut]) -> Process:
        results: list[Update | TrainingFailure] = yield from self._train(action.assignments)
        yield from self._hear_of_measurement()
        updates = [result for result in results if isinstance(result, Update)]
        failed = {
            result.assignment: result.reason for result in results if isinstance(result, TrainingFailure)
        }
        combined: Combined | None = None
        if len(updates) >= max(action.minimum, 1):
            share_of = dict(zip(action.assignments, action.weights, strict=True))
            left = sum(share_of[update.assignment] for update in updates)
            shares = [share_of[update.assignment] / left for update in updates]
            counted = as_counted(action, updates, cuts)
            combining = self.timeline.start(self.work.aggregator.aggregate(action.version, counted, shares))
            combined = yield self.timeline.join(combining)
        losses = {update.assignment: update.loss for update in updates if update.loss is not None}
        self._report_aggregate(action, combined, losses, failed)

    def _train(
        self, assignments: Sequence[int]
    ) -> Generator[simpy.Event, Any, list[Update | TrainingFailure]]:
        """Ask for the tensors of these updates; work that began eagerly is only awaited."""
        executor, timeline = self.work.executor, self.timeline
        works = [self._eager[number] for number in assignments if number in self._eager]
        late = [self._requests[number] for number in assignments if number not in self._eager]
        if late:
            works.append(timeline.start(executor.train(late)))
        results: list[Update | TrainingFailure] = []
        for work in works:
            results += yield timeline.join(work)
        found = {result.assignment: result for result in results}
        if set(found) != set(assignments):
            raise SimulationError(f"the executor answered {sorted(found)} to {sorted(assignments)}")
        return [found[number] for number in assignments]

    def _report_aggregate(
        self,
        action: ev.Aggregate,
        combined: Combined | None,
        losses: dict[int, float],
        failed: dict[int, str],
    ) -> None:
        made = combined is not None
        event = ev.Aggregated(
            now_s=self.timeline.now_s,
            version=action.version + 1 if made else action.version,
            spectrum=combined.spectrum if combined else self.work.aggregator.spectrum(action.version),
            alignments=combined.alignments if combined else {},
            losses=losses,
            failed={**failed, **(combined.failed if combined else {})},
            pruned=combined.pruned if combined else {},
            arrived=combined.arrived if combined else {},
            defence=combined.defence if combined else None,
        )
        self.scribe.aggregated(event)
        if combined is not None and combined.measured is not None:
            self.scribe.measured(event.now_s, event.version, combined.measured)
        self.feed(event)

    # --- measuring --------------------------------------------------------------------------------------

    def evaluate(self, action: ev.Evaluate) -> None:
        """Measure a version on held-out data."""
        self.timeline.clock.process(self._evaluation(action.version))

    def _evaluation(self, version: int) -> Process:
        work = self.timeline.start(self.work.evaluator.evaluate(version))
        if self.config.measures_aside:
            yield self.timeline.turn()
            self._aside = work
            self.scribe.keep_place(self.timeline.now_s)
            evaluation = Evaluation(version, None, None, {})  # the server asks for no more than the number
        else:
            evaluation = yield self.timeline.join(work)
            self.scribe.evaluated(self.timeline.now_s, evaluation)
        self.feed(ev.Evaluated(self.timeline.now_s, evaluation))

    def _hear_of_measurement(self) -> Process:
        """Wait for a measurement that has gone on aside, before the version that it measures is let go."""
        if self._aside is not None:
            evaluation = yield self.timeline.join(self._aside)
            self._aside = None
            self.scribe.fill_place(evaluation)
