"""How many clients should share a pass on this machine? A few real steps with each number of them.

Everything is as in a run: the model, the ranks that the allocator gives on the first version, shards, batches
and the number format of the wire. What comes out is a number to pin in the scenario; a run never measures.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch

from fedsim.errors import ScenarioError, TrainingError
from fedsim.experiment.build import build
from fedsim.experiment.preview import dry_run
from fedsim.experiment.scenario import Scenario
from fedsim.learn.executors.inline import InlineExecutor
from fedsim.method.messages import TrainRequest, Update

CANDIDATES = (1, 2, 4, 8, 16)
STEPS = 3
CLOSE = 1.03
"""A larger group must be faster than this to be worth its memory."""

_OUT_OF_MEMORY = (MemoryError, torch.OutOfMemoryError)


@dataclass(frozen=True, slots=True)
class Tuned:
    """What one number of clients took.

    Args:
        clients: Trained together.
        step_s: Median time of one step of one client; None where memory ran out.
    """

    clients: int
    step_s: float | None


async def tune_batch(
    scenario: Scenario, first: Scenario, *, repeats: int, tell: Callable[[str], None]
) -> list[Tuned]:
    """Measure every number of clients that a version of this scenario can bring together.

    Args:
        scenario: Whose training is measured.
        first: The same with the stub executor and one version: it tells whom the server asks for what.
        repeats: Measurements of each number, by turns.
        tell: Hears what is going on.

    Raises:
        ScenarioError: If nobody trains on the first version.
    """
    _, requests = await dry_run(first)
    asked = [request for request in requests if request.assignment.version == 0]
    if not asked:
        raise ScenarioError(
            "nobody trains on the first version, so there is nothing to measure; see fedsim check --preview"
        )
    inline = scenario.executor.model_copy(update={"kind": "inline", "batch_clients": 1})
    experiment = build(scenario.model_copy(update={"executor": inline}))
    trainer = None if experiment.engine is None else experiment.engine.trainer
    if not isinstance(trainer, InlineExecutor):
        raise TypeError(f"expected the inline executor, got {trainer}")
    steps = min(STEPS, scenario.training.local_steps)
    sample = [_shortened(request, steps) for request in asked[: CANDIDATES[-1]]]
    tell(f"{len(sample)} clients of the first version, {steps} steps each; repeats: {repeats}")
    try:
        return await _measured(trainer, sample, repeats)
    finally:
        await experiment.close()


def best(found: Sequence[Tuned]) -> int:
    """Return the smallest number of clients that is about as fast as the fastest; 1 unless others are faster.

    Args:
        found: With the number 1 among them.
    """
    times = {one.clients: one.step_s for one in found if one.step_s is not None}
    fastest = min(times.values())
    return next(clients for clients, step_s in sorted(times.items()) if step_s <= CLOSE * fastest)


def _shortened(request: TrainRequest, steps: int) -> TrainRequest:
    return replace(request, assignment=replace(request.assignment, steps=steps))


async def _measured(trainer: InlineExecutor, sample: Sequence[TrainRequest], repeats: int) -> list[Tuned]:
    sizes = [size for size in CANDIDATES if size <= len(sample)]
    times: dict[int, list[float]] = {size: [] for size in sizes}
    executors = {size: trainer.batched(size) for size in sizes}
    too_large: set[int] = set()
    for turn in range(repeats + 1):
        for size in sizes:
            step_s = None if size in too_large else await _step_s(executors[size], sample[:size])
            if step_s is None:
                too_large.add(size)
            elif turn:  # the first turn fills caches
                times[size].append(step_s)
    return [Tuned(size, None if size in too_large else median(times[size])) for size in sizes]


async def _step_s(executor: InlineExecutor, requests: Sequence[TrainRequest]) -> float | None:
    """Return what one step of one client takes in a group of these; None where memory runs out.

    Raises:
        TrainingError: If training fails.
    """
    began_s = time.perf_counter()
    try:
        answers = await executor.train(requests)
    except _OUT_OF_MEMORY:
        return None
    took_s = time.perf_counter() - began_s
    failed = [answer.reason for answer in answers if not isinstance(answer, Update)]
    if failed:
        raise TrainingError(f"a sampled client could not be trained: {failed[0]}")
    return took_s / len(requests) / requests[0].assignment.steps
