"""What would a client have learned without budgets? The oracle: same client, same steps, every column.

An oracle update starts from the same version as the client, wholly received and ungated, and trains columns
up to the oracle's rank: same shard, same order of data, same steps, same optimizer, same seed. It travels
through the same executor as any other request. Streams of the run are read, never advanced, so training
results do not depend on whether an oracle runs.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch

from fedsim.learn.versions import VersionGuard, VersionStore
from fedsim.lora.basis import balanced, compact_svd
from fedsim.lora.factors import Adapter, Factors, columns, zeros
from fedsim.method.aggregate import received_columns
from fedsim.method.bundle import BasisState, Method, Payload
from fedsim.method.messages import RankPlan, TrainRequest
from fedsim.seeds import Seeds
from fedsim.world.shape import LayerShape

Definition = Literal["fedsim", "paper"]
"""``fedsim`` compares updates, ``paper`` the client's whole adapter with one that is trained from zero."""

PAPER_ALPHA = 16.0


@dataclass(frozen=True, slots=True)
class OracleRequest(TrainRequest):
    """Ask an executor for an oracle update.

    Args:
        definition: What the oracle starts from.
        scale: The published ``alpha / rank``; only ``paper`` uses it.
    """

    definition: Definition
    scale: float


class OracleStore(VersionStore):
    """A version store that also knows what an oracle receives. Everything else is as in `VersionStore`."""

    def __init__(
        self,
        method: Method,
        shapes: tuple[LayerShape, ...],
        seed: int,
        init_adapter: Adapter | None = None,
        guard: VersionGuard | None = None,
    ) -> None:
        super().__init__(method, shapes, seed, init_adapter, guard)
        self._shapes = shapes
        self._seed = seed

    def payload(self, request: TrainRequest) -> Payload:
        """Return what a client, or an oracle, receives; exact."""
        if not isinstance(request, OracleRequest):
            return super().payload(request)
        if request.definition == "paper":
            return _fresh_payload(self._shapes, request)
        return _whole_payload(self.basis_state(request.assignment.version), request)

    def basis_state(self, version: int) -> BasisState:
        """Return a stored version as a singular value decomposition, whatever the method keeps."""
        state = self.state(version)
        if isinstance(state, BasisState):
            return state
        adapter = self.export(version)
        basis = {
            layer.name: compact_svd(adapter.get(layer.name, zeros(layer.d_in, layer.d_out)))
            for layer in self._shapes
        }
        return BasisState(version, basis, self._shapes, self._seed)

    def oracle_request(self, request: TrainRequest, rank: int, definition: Definition) -> OracleRequest:
        """Return the request that trains the oracle of an assignment.

        Args:
            request: What the client itself was asked.
            rank: Columns of a layer that the oracle trains; fewer where the layer is smaller.
            definition: ``paper`` also takes the step size of the published scale, ``alpha / rank`` with
                ``alpha = 16``: with the scale inside the factors, that is a learning rate of ``sqrt(scale)``.

        Source:
            The published FedHera code for ``paper``; docs/compare.md for both.
        """
        ranks = tuple(min(rank, layer.d_in, layer.d_out) for layer in self._shapes)
        scale = PAPER_ALPHA / rank if definition == "paper" else 1.0
        learning_rate = request.assignment.learning_rate * math.sqrt(scale)
        assignment = replace(request.assignment, gate=1.0, learning_rate=learning_rate)
        return OracleRequest(assignment, RankPlan(ranks, ranks), definition, scale)


def _whole_payload(state: BasisState, request: OracleRequest) -> Payload:
    """Return a whole version: the first columns to be trained, the rest as a tail."""
    prefix, tail = {}, {}
    for layer, rank in zip(state.shapes, request.plan.trained, strict=True):
        basis = state.basis[layer.name]
        prefix[layer.name] = received_columns(state, layer, rank)
        tail[layer.name] = columns(balanced(basis), rank, basis.rank)
    return Payload(prefix, tail)


def _fresh_payload(shapes: tuple[LayerShape, ...], request: OracleRequest) -> Payload:
    """Return a fresh adapter, scale inside: zero on the output side, uniform on the input side as in PEFT."""
    seeds = Seeds(request.assignment.seed)
    prefix, tail = {}, {}
    for layer, rank in zip(shapes, request.plan.trained, strict=True):
        bound = math.sqrt(request.scale / layer.d_in)
        drawn = seeds.generator("oracle", layer.name).uniform(-bound, bound, (rank, layer.d_in))
        prefix[layer.name] = Factors(
            lora_a=torch.from_numpy(drawn).float(), lora_b=torch.zeros(layer.d_out, rank)
        )
        tail[layer.name] = zeros(layer.d_in, layer.d_out)
    return Payload(prefix, tail)
