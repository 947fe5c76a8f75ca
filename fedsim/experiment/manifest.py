"""What must be known to run this again? Scenario, seeds, versions, traces and their hashes."""

import platform
from collections import Counter
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import numpy as np

from fedsim.experiment.shard_facts import shard_facts
from fedsim.world.cost import Prices

if TYPE_CHECKING:
    from fedsim.experiment.build import Experiment

PACKAGES = ("fedsim-lora", "torch", "transformers", "peft", "datasets", "simpy", "numpy", "pandas")


def manifest(experiment: "Experiment") -> dict[str, object]:
    """Describe an experiment before it runs.

    Args:
        experiment: As built.

    Returns:
        JSON values: the resolved scenario and its hash, versions, CPU capability, traces with hash and
        sources, the fleet's classes, a sample of their shards, the model's real and priced shape, what a
        column costs.
    """
    scenario, engine = experiment.scenario, experiment.engine
    batch_clients = 1 if engine is None else engine.batch_clients
    return {
        "scenario": scenario.model_dump(mode="json", by_alias=True),
        "scenario_directory": str(scenario.directory),
        "scenario_sha256": scenario.scenario_hash,
        "seed": scenario.seed,
        "executor": scenario.executor.kind,
        "method": scenario.method.name,
        "versions": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "cpu_capability": experiment.cpu_capability,
        "traces": dict(experiment.trace_hashes),
        "trace_notes": list(experiment.trace_notes),
        "trace_sources": {
            origin.path: {"source": origin.source, "licence": origin.licence}
            for origin in experiment.population.origins
        },
        "num_devices": experiment.population.num_devices,
        "devices_by_class": dict(sorted(Counter(experiment.population.device_classes).items())),
        "shards": shard_facts(experiment.task, experiment.population),
        "prices": _told(experiment.prices),
        "model": experiment.shape.name,
        "num_params": experiment.shape.num_params,
        "layers": [layer.name for layer in experiment.shape.layers],
        "priced_as": experiment.priced.name,
        "priced_num_params": experiment.priced.num_params,
        **({} if batch_clients == 1 else {"batch_clients": batch_clients}),
        **({"faulty_clients": list(experiment.faulty)} if experiment.faulty else {}),
        "caveats": list(experiment.caveats),
    }


def _told(prices: Prices) -> dict[str, object]:
    """Prices as JSON, so that whoever reads a record can tell what a plan costs; layers stand beside them."""
    told: dict[str, object] = {}
    for field in fields(prices):
        value = getattr(prices, field.name)
        if isinstance(value, np.ndarray):
            told[field.name] = value.tolist()
        elif isinstance(value, float):
            told[field.name] = value
    return told


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
