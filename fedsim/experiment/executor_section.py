"""What may a scenario say about where training happens?"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from fedsim.experiment.explain import show
from fedsim.experiment.sections import Positive, Section, Word

_NEEDS_DEMAND = (
    "needs executor.prefetch: none, since who is trained together is known only when a version is made; set "
    "it, or leave batch_clients at 1"
)
_ONLY_RAY: dict[str, float | None] = {"address": None, "num_cpus": 1.0, "num_gpus": 0.0}
"""Option that only Ray has -> its default there."""


class StubSection(Section):
    """The fake executor.

    Args:
        exponent: Singular values of its updates fall as ``k ** -exponent``.
    """

    exponent: Positive = 1.0


def _read_batch_clients(value: object) -> object:
    """Accept a number of clients, or the word that looks it up."""
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1024):
        return value
    raise ValueError(f"expected auto or a whole number from 1 to 1024, got {show(value)}")


class ExecutorSection(Section):
    """Where and when training happens; the record does not depend on it, but for stub and `batch_clients`.

    Args:
        kind: In this process, in worker processes, in actors of Ray, or not at all.
        workers: Worker processes, or actors.
        batch_clients: Clients trained in one pass through the base; ``auto`` looks it up. See performance.md.
        prefetch: What is trained before a version asks for it: nothing, what is sure to arrive unless the
            server recalls it, or whatever a client begins to train. Steps that nobody asks for are wasted.
        address: Of a Ray cluster, ``auto`` for the one that this machine belongs to; where None, Ray is
            started on this machine for the run. Only ``ray``.
        num_cpus: Cores that Ray sets aside for an actor, 1 by default. Only ``ray``.
        num_gpus: GPUs that Ray gives to an actor, or a share of one; 0 by default. Only ``ray``.
        stub: Settings of the fake.
    """

    kind: Literal["inline", "workers", "ray", "stub"] = "inline"
    workers: Annotated[int, Field(ge=1, le=1024)] = 2
    batch_clients: Annotated[int | Literal["auto"], BeforeValidator(_read_batch_clients)] = 1
    prefetch: Literal["none", "certain", "speculative"] = "none"
    address: Word | None = None
    num_cpus: Positive | None = None
    num_gpus: Annotated[float, Field(ge=0)] | None = None
    stub: StubSection = StubSection()

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: Any) -> Any:
        """Give the options of Ray their defaults only where they have an effect."""
        if isinstance(values, dict) and values.get("kind") == "ray":
            return {**_ONLY_RAY, **values}
        return values


def executor_misfits(executor: ExecutorSection, device: str) -> Iterator[tuple[str, str]]:
    """Yield values that contradict each other: the key to change, and why.

    Args:
        executor: As in the scenario.
        device: Where the model shall live.
    """
    if executor.batch_clients != 1 and executor.prefetch != "none":
        yield "executor.batch_clients", _NEEDS_DEMAND
    for key, default in _ONLY_RAY.items():
        if executor.kind != "ray" and getattr(executor, key) is not None:
            yield f"executor.{key}", f"has no effect on {executor.kind}; leave it out or write null"
        if executor.kind == "ray" and getattr(executor, key) is None and default is not None:
            yield f"executor.{key}", "expected a number, got nothing"
    if executor.kind == "ray" and device.startswith("cuda") and not executor.num_gpus:
        yield "executor.num_gpus", f"model.device is {device}, and actors have no GPU; give them one"
