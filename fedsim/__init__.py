"""fedsim: an event-driven simulator of federated LoRA fine-tuning on realistic device fleets.

    import fedsim

    result = fedsim.run("scenarios/skewed_edge.yaml")
    print(result.directory, result.evaluations[-1]["loss"])

Names are loaded when they are first used, so that importing fedsim does not import PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedsim.errors import FedsimError, InputError, ModelError, ScenarioError, TraceError
    from fedsim.experiment.load import Run, load_run
    from fedsim.experiment.run import Result, aresume, arun, resume, run
    from fedsim.experiment.scenario import Scenario, load_scenario

__all__ = [
    "FedsimError",
    "InputError",
    "ModelError",
    "Result",
    "Run",
    "Scenario",
    "ScenarioError",
    "TraceError",
    "aresume",
    "arun",
    "load_run",
    "load_scenario",
    "resume",
    "run",
]

_HOMES = {
    "fedsim.errors": ("FedsimError", "InputError", "ModelError", "ScenarioError", "TraceError"),
    "fedsim.experiment.load": ("Run", "load_run"),
    "fedsim.experiment.run": ("Result", "aresume", "arun", "resume", "run"),
    "fedsim.experiment.scenario": ("Scenario", "load_scenario"),
}


def __getattr__(name: str) -> Any:
    """Load a public name from where it lives."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'fedsim' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
