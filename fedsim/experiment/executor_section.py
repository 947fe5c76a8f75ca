"""What may a scenario say about where training happens?"""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from fedsim.experiment.explain import show
from fedsim.experiment.sections import Positive, Section, TrainingSection

_NEEDS_DEFERRED = (
    "needs training.deferred: true, since who is trained together is known only when a version is made; set it, "
    "or leave batch_clients at 1"
)


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
    """Where training happens; the record does not depend on it, the stub and `batch_clients` excepted.

    Args:
        kind: In this process, in worker processes, or not at all.
        workers: Worker processes.
        batch_clients: Clients trained in one pass through the base; ``auto`` looks it up. See performance.md.
        stub: Settings of the fake.
    """

    kind: Literal["inline", "workers", "stub"] = "inline"
    workers: Annotated[int, Field(ge=1, le=1024)] = 2
    batch_clients: Annotated[int | Literal["auto"], BeforeValidator(_read_batch_clients)] = 1
    stub: StubSection = StubSection()


def executor_misfits(executor: ExecutorSection, training: TrainingSection) -> Iterator[tuple[str, str]]:
    """Yield values that contradict each other: the key to change, and why."""
    if executor.batch_clients != 1 and not training.deferred:
        yield "executor.batch_clients", _NEEDS_DEFERRED
