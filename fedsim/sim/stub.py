"""What if nobody trains? The public fake: seeded numbers with a power-law spectrum, and loud about it.

It lets a scenario's clock be studied without a gradient. Its losses are not losses, so it reports none.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fedsim.method.events import Spectrum
from fedsim.method.messages import Evaluation, TrainingFailure, TrainRequest, Update
from fedsim.seeds import Seeds, mix
from fedsim.sim.executor import Combined
from fedsim.world.shape import ModelShape


@dataclass(frozen=True, slots=True)
class StubExecutor:
    """Answers every request at once, with no tensors and no loss."""

    async def train(self, requests: Sequence[TrainRequest]) -> Sequence[Update | TrainingFailure]:
        """Return an empty update for each request."""
        return [
            Update(
                assignment=request.assignment.id,
                client=request.assignment.client,
                base_version=request.assignment.version,
                plan=request.plan,
                change=None,
                num_examples=1,
                loss=None,
            )
            for request in requests
        ]


@dataclass(slots=True)
class StubAggregator:
    """Versions that are only spectra: rank grows with what was trained, energy falls by a power law.

    Args:
        shape: The layers.
        seeds: Streams of the run.
        exponent: ``sigma_k = (k + 1) ** -exponent``, times a seeded factor near one per layer and version.
        rank_cap: Largest rank of a layer.
    """

    shape: ModelShape
    seeds: Seeds
    exponent: float
    rank_cap: int
    _ranks: dict[int, dict[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Version 0 is a zero adapter."""
        self._ranks[0] = {layer.name: 0 for layer in self.shape.layers}

    def spectrum(self, version: int) -> Spectrum:
        """Singular values of a stored version."""
        return {layer: self._values(version, layer, rank) for layer, rank in self._ranks[version].items()}

    def _values(self, version: int, layer: str, rank: int) -> np.ndarray:
        scale = self.seeds.generator("stub", version, layer).uniform(0.5, 1.5)
        return np.asarray(scale * np.arange(1, rank + 1, dtype=np.float64) ** -self.exponent)

    async def aggregate(self, version: int, updates: Sequence[Update], weights: Sequence[float]) -> Combined:
        """Raise the rank of each layer by what the updates trained."""
        old = self._ranks[version]
        limits = {layer.name: min(self.rank_cap, layer.d_in, layer.d_out) for layer in self.shape.layers}
        self._ranks[version + 1] = {
            layer.name: min(
                limits[layer.name], old[layer.name] + sum(update.plan.trained[index] for update in updates)
            )
            for index, layer in enumerate(self.shape.layers)
        }
        assert len(updates) == len(weights)
        numbers = [update.assignment for update in updates]
        drawn = mix(self.seeds.seed("alignment", version), np.array(numbers, dtype=np.int64)) / 2.0**64
        alignments = dict(zip(numbers, (1.2 * drawn - 0.2).tolist(), strict=True))
        return Combined(self.spectrum(version + 1), alignments, {})

    def release(self, version: int) -> None:
        """Forget a version that nobody refers to."""
        del self._ranks[version]


@dataclass(frozen=True, slots=True)
class StubEvaluator:
    """Measures nothing, and says so."""

    async def evaluate(self, version: int) -> Evaluation:
        """Return an evaluation without a loss."""
        return Evaluation(version, loss=None, token_accuracy=None, metrics={})
