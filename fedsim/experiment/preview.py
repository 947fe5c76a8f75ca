"""What will a run do, and how long will it take? A dry run of the whole clock, then a few real steps.

The dry run is the scenario with the stub executor: who is online, asked, dropped or too late, and at which
ranks. Real spectra steer ranks a little, so a real run differs in detail. The work that it asks for is
counted, and priced by what a few real steps, one evaluation and one aggregation take on this machine now.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from fedsim.errors import SimulationError, TrainingError
from fedsim.experiment.build import Experiment, build
from fedsim.experiment.load import Run, load_run
from fedsim.experiment.manifest import manifest
from fedsim.experiment.record import MANIFEST, Recorder, write_json
from fedsim.experiment.run import simulate
from fedsim.experiment.scenario import Scenario
from fedsim.learn.versions import VersionStore
from fedsim.method.messages import TrainingFailure, TrainRequest, Update
from fedsim.sim.executor import Executor
from fedsim.sim.server import RealWork

SAMPLE_UPDATES = 3
FEW_STEPS, MORE_STEPS = 1, 3


@dataclass(slots=True)
class Listener:
    """An executor that notes what it is asked, and lets another answer."""

    inner: Executor
    requests: list[TrainRequest] = field(default_factory=list)

    async def train(self, requests: Sequence[TrainRequest]) -> Sequence[Update | TrainingFailure]:
        """Answer every request."""
        self.requests += requests
        return await self.inner.train(requests)


@dataclass(frozen=True, slots=True)
class Work:
    """How much real work the dry run asked for.

    Args:
        updates: Trained.
        oracles: Trained to measure drift.
        steps: Of one update.
        aggregations: Versions made.
        evaluations: Versions measured.
    """

    updates: int
    oracles: int
    steps: int
    aggregations: int
    evaluations: int


@dataclass(frozen=True, slots=True)
class Stopwatch:
    """What pieces of real work took on this machine.

    Args:
        build_s: Making the experiment.
        update_s: What an update takes besides its steps.
        step_s: One local step.
        aggregation_s: Combining a whole round, reckoned from those updates that were trained here.
        evaluation_s: Measuring one version.
        sampled: Updates that were trained to measure it.
        core_share: Processor time over time that passed meanwhile; well below 1 on a busy machine.
    """

    build_s: float
    update_s: float
    step_s: float
    aggregation_s: float
    evaluation_s: float
    sampled: int
    core_share: float


@dataclass(frozen=True, slots=True)
class Preview:
    """What a run will do and take.

    Args:
        run: The dry run; its folder is gone.
        work: What is to be done for real.
        measured: What pieces of it took; None where the scenario trains nothing.
        workers: Processes among which training is spread.
        wall_s: Estimate for the whole run; None where nothing was measured.
    """

    run: Run
    work: Work
    measured: Stopwatch | None
    workers: int
    wall_s: float | None


async def preview(dry: Scenario, real: Scenario) -> Preview:
    """Go through a scenario without training, then time a sample of the training.

    Args:
        dry: The scenario with the stub executor.
        real: The scenario with its own.

    Raises:
        InputError: If something that a run needs is wrong.
    """
    run, requests = await dry_run(dry)
    work = _work(run, real, len(requests))
    if real.executor.kind == "stub" or not requests:
        return Preview(run, work, None, 1, None)
    measured = await _measured(real, requests)
    workers = real.executor.workers if real.executor.kind in {"workers", "ray"} else 1
    return Preview(run, work, measured, workers, _wall_s(work, measured, workers))


async def dry_run(scenario: Scenario) -> tuple[Run, list[TrainRequest]]:
    """Go through a scenario with the stub executor; returns the run, and what it asked to be trained."""
    experiment = build(scenario)
    listener = Listener(experiment.work.executor)
    heard = replace(
        experiment, work=RealWork(listener, experiment.work.aggregator, experiment.work.evaluator)
    )
    with TemporaryDirectory(prefix="fedsim-preview-") as name:
        directory = Path(name)
        write_json(directory / MANIFEST, manifest(experiment))
        recorder = Recorder(directory, experiment.figures)
        try:
            await simulate(heard, [recorder])
        finally:
            recorder.close()
        return load_run(directory), listener.requests


def _work(run: Run, scenario: Scenario, updates: int) -> Work:
    drift, made = scenario.measure.drift, int((run.rounds["result"] == "aggregated").sum())
    oracles = 0 if drift is None else made // drift.every * drift.clients * len(drift.definition)
    return Work(updates, oracles, scenario.training.local_steps, made, len(run.evaluations))


async def _measured(scenario: Scenario, requests: Sequence[TrainRequest]) -> Stopwatch:
    """Train a few updates of the first version for a few steps, combine them, and measure once."""
    inline = scenario.model_copy(update={"executor": scenario.executor.model_copy(update={"kind": "inline"})})
    began_s, worked_s = time.monotonic(), time.process_time()
    whole_s = began_s
    experiment = build(inline)
    build_s = time.monotonic() - began_s
    first = [request for request in requests if request.assignment.version == 0]
    sample = first[:SAMPLE_UPDATES]
    try:
        await _train(experiment, sample[:1], FEW_STEPS)  # the first pass also fills caches
        few_s, _ = await _train(experiment, sample, FEW_STEPS)
        more_s, updates = await _train(experiment, sample, MORE_STEPS)
        began_s = time.monotonic()
        await _store(experiment).aggregate(0, updates, [1.0 / len(updates)] * len(updates))
        aggregation_s = (time.monotonic() - began_s) * len(first) / len(sample)
        began_s = time.monotonic()
        await experiment.work.evaluator.evaluate(1)
        evaluation_s = time.monotonic() - began_s
    finally:
        await experiment.close()
    step_s = max(more_s - few_s, 0.0) / (MORE_STEPS - FEW_STEPS)
    return Stopwatch(
        build_s=build_s,
        update_s=max(few_s - FEW_STEPS * step_s, 0.0),
        step_s=step_s,
        aggregation_s=aggregation_s,
        evaluation_s=evaluation_s,
        sampled=len(sample),
        core_share=(time.process_time() - worked_s) / (time.monotonic() - whole_s),
    )


def _store(experiment: Experiment) -> VersionStore:
    """Return what combines updates, beneath whatever measures drift, which is counted apart."""
    if experiment.engine is None:
        raise SimulationError("expected an experiment that trains, got one that does not")
    return experiment.engine.store


async def _train(
    experiment: Experiment, requests: Sequence[TrainRequest], steps: int
) -> tuple[float, list[Update]]:
    """Train with so many steps; returns seconds per update, and the updates.

    Raises:
        TrainingError: If none of them could be trained: then a run cannot either.
    """
    shorter = [replace(request, assignment=replace(request.assignment, steps=steps)) for request in requests]
    began_s = time.monotonic()
    answers = await experiment.work.executor.train(shorter)
    took_s = (time.monotonic() - began_s) / len(shorter)
    updates = [answer for answer in answers if isinstance(answer, Update)]
    if not updates:
        reasons = {answer.reason for answer in answers if isinstance(answer, TrainingFailure)}
        raise TrainingError(f"none of {len(shorter)} sampled updates could be trained: {'; '.join(reasons)}")
    return took_s, updates


def _wall_s(work: Work, measured: Stopwatch, workers: int) -> float:
    training_s = (work.updates + work.oracles) * (measured.update_s + work.steps * measured.step_s)
    return (
        measured.build_s
        + training_s / workers
        + work.aggregations * measured.aggregation_s
        + work.evaluations * measured.evaluation_s
    )
