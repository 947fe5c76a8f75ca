"""What must be known to run this again? Scenario, seeds, versions, traces and their hashes."""

import platform
from collections import Counter
from dataclasses import asdict, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from fedsim.experiment.load import read_json, reading
from fedsim.experiment.record import MANIFEST
from fedsim.experiment.shard_facts import shard_facts
from fedsim.world.cost import Prices
from fedsim.world.shape import LayerShape, ModelShape

if TYPE_CHECKING:
    from fedsim.experiment.build import Experiment

Shape = TypeVar("Shape", LayerShape, ModelShape)

MOST = 10**13
"""No model has as many of anything."""

PACKAGES = ("fedsim-lora", "torch", "transformers", "peft", "datasets", "simpy", "numpy", "pandas")


def manifest(experiment: "Experiment") -> dict[str, object]:
    """Describe an experiment before it runs.

    Args:
        experiment: As built.

    Returns:
        JSON values: the resolved scenario and its hash, versions, CPU capability, traces with hash and
        sources, the fleet's classes, a sample of their shards, the model's shape and size and what it is
        priced as, what a column costs.
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
        "shape": asdict(experiment.shape),
        "priced_as": experiment.priced.name,
        "priced_num_params": experiment.priced.num_params,
        **({} if batch_clients == 1 else {"batch_clients": batch_clients}),
        **({"faulty_clients": list(experiment.faulty)} if experiment.faulty else {}),
        "caveats": list(experiment.caveats),
    }


def known_shape(directory: Path) -> ModelShape | None:
    """Return the shape of the base model as a run has found it; None in manifests that do not tell it.

    Args:
        directory: Of the run.

    Raises:
        InputError: If the manifest is damaged.
    """
    path = directory / MANIFEST
    told = read_json(path).get("shape")
    if told is None:
        return None
    with reading(path):
        layers = tuple(_checked(LayerShape(**layer)) for layer in told["layers"])
        return _checked(ModelShape(**{**told, "layers": layers}))


def _checked(shape: Shape) -> Shape:
    """Refuse sizes that no model has: nothing is made of them before they have been looked at."""
    for field in fields(shape):
        value = getattr(shape, field.name)
        if field.type is int and not (type(value) is int and 0 < value < MOST):
            raise ValueError(f"{field.name} is {value!r}")
        if field.type is str and not isinstance(value, str):
            raise TypeError(f"{field.name} is {value!r}")
    return shape


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
