"""``fedsim shards``: who would hold what under a scenario."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from fedsim.cli.scenarios import ScenarioArgument, SetOption, overrides
from fedsim.cli.speech import JsonOption

if TYPE_CHECKING:
    from fedsim.learn.shards import ShardStatistics

SHOWN_GROUPS = 4


def shards(
    scenario: ScenarioArgument,
    assignments: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Deal the examples of a scenario to its devices, and count: examples, groups, entropy of the groups."""
    from fedsim.experiment.fleet import build_population  # noqa: PLC0415 - keeps help fast
    from fedsim.experiment.scenario import load_scenario  # noqa: PLC0415 - keeps help fast
    from fedsim.experiment.tasks import build_task, device_sets  # noqa: PLC0415 - imports torch
    from fedsim.learn.shards import shard_statistics  # noqa: PLC0415 - imports torch

    resolved = load_scenario(scenario, overrides(assignments or []))
    population = build_population(resolved)
    task = build_task(resolved, population.num_devices, device_sets(resolved, population))
    statistics = shard_statistics(task)
    if as_json:
        typer.echo(json.dumps([asdict(item) for item in statistics], indent=1, ensure_ascii=False))
        return
    names = [
        f"{population.device_ids[item.client]} ({population.device_classes[item.client]})"
        for item in statistics
    ]
    _print_table(names, statistics)


def _print_table(names: Sequence[str], statistics: "Sequence[ShardStatistics]") -> None:
    width = max(len("device"), *map(len, names))
    typer.echo(f"{'device':<{width}}  examples  groups  entropy  largest groups")
    for name, item in zip(names, statistics, strict=True):
        largest = [f"{group or '-'} {count}" for group, count in list(item.counts.items())[:SHOWN_GROUPS]]
        typer.echo(
            f"{name:<{width}}  {item.num_examples:>8}  {len(item.counts):>6}  {item.entropy_bits:>7.2f}  "
            f"{', '.join(largest)}"
        )
    sizes = sorted(item.num_examples for item in statistics)
    typer.echo(
        f"{len(sizes)} devices, {sum(sizes)} examples: {sizes[0]} to {sizes[-1]}, "
        f"median {sizes[len(sizes) // 2]}"
    )
