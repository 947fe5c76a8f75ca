"""What must be known to run this again? Scenario, seeds, versions, traces and their hashes."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedsim.experiment.build import Experiment

PACKAGES = ("fedsim-lora", "torch", "transformers", "peft", "datasets", "simpy", "numpy", "pandas")


def manifest(experiment: "Experiment") -> dict[str, object]:
    """Describe an experiment before it runs.

    Args:
        experiment: As built.

    Returns:
        JSON values: the resolved scenario and its hash, versions, CPU capability, trace files with hash and
        notes, the model's real and priced shape.
    """
    scenario = experiment.scenario
    return {
        "scenario": scenario.model_dump(mode="json", by_alias=True),
        "scenario_sha256": scenario.scenario_hash,
        "seed": scenario.seed,
        "executor": scenario.executor.kind,
        "method": scenario.method.name,
        "versions": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "cpu_capability": experiment.cpu_capability,
        "traces": dict(experiment.trace_hashes),
        "trace_notes": list(experiment.trace_notes),
        "model": experiment.shape.name,
        "num_params": experiment.shape.num_params,
        "layers": [layer.name for layer in experiment.shape.layers],
        "priced_as": experiment.priced.name,
        "priced_num_params": experiment.priced.num_params,
        "caveats": list(experiment.caveats),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
