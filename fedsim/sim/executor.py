"""Who does the real work? Protocols that the clock needs; `fedsim.learn` satisfies them without import.

None of these knows virtual time: a join takes none.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from fedsim.method.bundle import Combined
from fedsim.method.events import Spectrum
from fedsim.method.messages import Evaluation, TrainingFailure, TrainRequest, Update

__all__ = ["Aggregator", "Combined", "Evaluator", "Executor"]


@runtime_checkable
class Executor(Protocol):
    """Local training."""

    async def train(self, requests: Sequence[TrainRequest]) -> Sequence[Update | TrainingFailure]:
        """Train every request; answers in the order of the requests. It may batch or spread them."""
        ...


@runtime_checkable
class Aggregator(Protocol):
    """Holds the versions; combines updates into the next one."""

    def spectrum(self, version: int) -> Spectrum:
        """Singular values of a stored version."""
        ...

    async def aggregate(self, version: int, updates: Sequence[Update], weights: Sequence[float]) -> Combined:
        """Make version ``version + 1`` from `version` and these updates.

        Weights are shares that sum to one; an update counts for its share times its discount.
        """
        ...

    def release(self, version: int) -> None:
        """Forget a version that nobody refers to."""
        ...


@runtime_checkable
class Evaluator(Protocol):
    """Measures the global adapter."""

    async def evaluate(self, version: int) -> Evaluation:
        """Measure a stored version on held-out data."""
        ...
