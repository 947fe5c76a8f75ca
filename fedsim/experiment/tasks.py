"""How does a scenario's task become examples on devices, and how are they measured?"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedsim.errors import ScenarioError
from fedsim.experiment.learning_sections import EMBEDDED
from fedsim.experiment.scenario import Scenario
from fedsim.learn.data import EmbeddedTask, FixedTask, Task
from fedsim.learn.evaluate import EvaluationSettings
from fedsim.learn.example import Example
from fedsim.learn.shards import ShardSettings, deal, topic_groups
from fedsim.learn.tasks.assemble import ReadSettings, read_examples
from fedsim.learn.tasks.catalogue import TASKS
from fedsim.seeds import Seeds
from fedsim.world.population import Population

DAY_S = 86400.0
QUARTERS = 4
NUM_TOPICS = 10


def build_task(scenario: Scenario, num_clients: int, sets: Sequence[int] = ()) -> Task:
    """Make the data set of a scenario and split it over the fleet.

    Args:
        scenario: As loaded.
        num_clients: Number of shards.
        sets: Per device, the set that its data follow; needed where the scenario says so.

    Raises:
        InputError: If a file is wrong, or has too few rows.
    """
    seed = Seeds(scenario.seed).seed("task")
    if scenario.task.name == EMBEDDED:
        return _embedded(scenario, num_clients, seed, tuple(sets))
    return _from_files(scenario, num_clients, seed, tuple(sets))


def device_sets(scenario: Scenario, population: Population) -> tuple[int, ...]:
    """Return the set of each device that its data follow; nothing where they follow none."""
    follow = scenario.task.shards.follow
    if follow is None:
        return ()
    if follow == "device_class":
        return tuple(int(index) for index in population.class_index)
    return tuple(_online_quarter(population, index) for index in range(population.num_devices))


def evaluation_settings(scenario: Scenario) -> EvaluationSettings:
    """Return how the global adapter is measured: as the scenario says, else as the task suggests."""
    evaluation = scenario.evaluation
    form = TASKS.get(scenario.task.name)
    suggested = ("rouge_l",) if form is None else form.metrics
    return EvaluationSettings(
        max_length=scenario.task.max_length,
        generated=evaluation.generate,
        max_new_tokens=evaluation.max_new_tokens,
        metrics=suggested if evaluation.metrics is None else evaluation.metrics,
        stop=() if form is None else form.stop,
    )


def measured_clients(scenario: Scenario, task: Task) -> list[tuple[Example, ...]]:
    """Return the examples of the clients that are measured one by one, always the same ones."""
    evaluation = scenario.evaluation
    order = Seeds(scenario.seed).generator("measured_clients").permutation(task.num_clients)
    chosen = sorted(order[: evaluation.clients].tolist())
    return [
        tuple(replace(example, learn_prompt=False) for example in task.shard(client))[
            : evaluation.client_examples
        ]
        for client in chosen
    ]


def _embedded(scenario: Scenario, num_clients: int, seed: int, sets: tuple[int, ...]) -> EmbeddedTask:
    task, shards = scenario.task, scenario.task.shards
    made = EmbeddedTask(
        num_clients=num_clients,
        seed=seed,
        mean_examples=task.examples_per_client or 120,
        min_examples=shards.min_examples,
        concentration=shards.concentration,
        held_out_size=scenario.evaluation.held_out_examples,
        affinity=sets,
        strength=shards.strength or 0.0,
    )
    return made if shards.quantity_sigma is None else replace(made, quantity_sigma=shards.quantity_sigma)


def _from_files(scenario: Scenario, num_clients: int, seed: int, sets: tuple[int, ...]) -> FixedTask:
    task, shards, streams = scenario.task, scenario.task.shards, Seeds(seed)
    if task.train is None:
        raise scenario.error("task.train", "expected the path of a training file")
    settings = ReadSettings(
        template=task.prompt,
        answer_only=task.answer_only,
        column=shards.column,
        held_out_share=task.held_out_share or 0.0,
    )
    rng = streams.generator("held_out")
    examples, held_out = read_examples(TASKS[task.name], task.train, task.held_out, settings, rng)
    examples = _with_topics(scenario, examples, seed)
    dealing = ShardSettings(
        kind=shards.kind,
        concentration=shards.concentration,
        min_examples=shards.min_examples,
        quantity_sigma=shards.quantity_sigma or 0.0,
        affinity=sets,
        strength=shards.strength or 0.0,
        affinity_seed=seed,
    )
    groups = [example.group for example in examples]
    try:
        members = deal(groups, num_clients, dealing, streams.generator("split"))
    except ScenarioError as error:
        raise scenario.error("task.train", f"{task.train}: {error}") from error
    sample = rng.permutation(len(held_out))[: scenario.evaluation.held_out_examples]
    return FixedTask(
        examples=examples,
        members=members,
        held_out=tuple(held_out[index] for index in sorted(sample.tolist())),
    )


def _with_topics(scenario: Scenario, examples: tuple[Example, ...], seed: int) -> tuple[Example, ...]:
    """Group by topic where the scenario asks for it, or has nothing else to tell examples apart."""
    shards = scenario.task.shards
    has_groups = len({example.group for example in examples}) > 1
    by_group = shards.kind == "dirichlet" or shards.follow is not None
    if not by_group or shards.column is not None or (has_groups and shards.topics is None):
        return examples
    found = topic_groups([example.prompt for example in examples], shards.topics or NUM_TOPICS, seed)
    return tuple(replace(example, group=group) for example, group in zip(examples, found, strict=True))


def _online_quarter(population: Population, index: int) -> int:
    """Return the quarter of the day around which a device is online: the circular mean of its presence."""
    availability = population.device(index).availability
    finite = np.isfinite(availability.ends_s)
    starts = availability.starts_s[finite] - availability.phase_s
    ends = availability.ends_s[finite] - availability.phase_s
    turn = 2j * math.pi / DAY_S
    mean = complex(((np.exp(turn * ends) - np.exp(turn * starts)) / turn).sum())
    hours = math.atan2(mean.imag, mean.real) / (2 * math.pi) % 1.0
    return int(hours * QUARTERS) % QUARTERS
