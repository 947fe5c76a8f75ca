"""What do methods share whose state is a singular value decomposition per layer?

The first version, what a client receives of it, its spectrum and its export.
"""

from functools import partial

import numpy as np

from fedsim.errors import ScenarioError
from fedsim.lora.basis import balanced, compact_svd, zero_basis
from fedsim.lora.factors import Adapter, Factors, zeros
from fedsim.method import aggregate as aggregation
from fedsim.method.bundle import Aggregate, BasisState, Method, Payload
from fedsim.method.coupled import CommonRank
from fedsim.method.events import Spectrum
from fedsim.method.messages import RankPlan
from fedsim.method.tail import no_gate
from fedsim.world.shape import LayerShape


def initial_state(
    shapes: tuple[LayerShape, ...], seed: int, adapter: Adapter | None, *, max_rank: int
) -> BasisState:
    """Return version 0: zero, or the decomposition of an adapter.

    Raises:
        ScenarioError: If the adapter has a layer that the model lacks, or one of another shape.
    """
    start = {} if adapter is None else adapter
    unknown = sorted(set(start) - {layer.name for layer in shapes})
    if unknown:
        raise ScenarioError(
            f"initial adapter: expected layers that carry an adapter in this model, got {unknown[0]!r}"
        )
    return BasisState(
        version=0,
        basis={
            layer.name: compact_svd(_fitting(start[layer.name], layer), max_rank)
            if layer.name in start
            else zero_basis(layer.d_in, layer.d_out)
            for layer in shapes
        },
        shapes=shapes,
        seed=seed,
    )


def _fitting(factors: Factors, layer: LayerShape) -> Factors:
    """Refuse factors of another shape than the layer."""
    if (factors.d_in, factors.d_out) != (layer.d_in, layer.d_out):
        raise ScenarioError(
            f"initial adapter, {layer.name}: expected {layer.d_out} x {layer.d_in}, "
            f"got {factors.d_out} x {factors.d_in}"
        )
    return factors


def redistribute(state: BasisState, plan: RankPlan, seed: int) -> Payload:
    """Return the columns that a plan grants, split into trained prefix and frozen tail.

    All clients of a version get the same columns, so `seed` has no effect on them.
    """
    del seed
    prefix, tail = {}, {}
    for layer, total, trained in zip(state.shapes, plan.total, plan.trained, strict=True):
        prefix[layer.name], tail[layer.name] = aggregation.split_plan(state, layer, total, trained)
    return Payload(prefix=prefix, tail=tail)


def redistribute_trained(state: BasisState, plan: RankPlan, seed: int) -> Payload:
    """Return the trained columns alone, for methods without a frozen tail."""
    whole = redistribute(state, RankPlan(plan.trained, plan.trained), seed)
    tail = {layer.name: zeros(layer.d_in, layer.d_out) for layer in state.shapes}
    return Payload(prefix=whole.prefix, tail=tail)


def spectrum_of(state: BasisState) -> Spectrum:
    """Return the singular values per layer."""
    return {
        layer.name: np.asarray(state.basis[layer.name].sigma.numpy(), dtype=np.float64)
        for layer in state.shapes
    }


def export(state: BasisState) -> Adapter:
    """Return the global adapter as balanced factors, scaling 1."""
    return {layer.name: balanced(state.basis[layer.name]) for layer in state.shapes}


def coupled_method(
    name: str,
    rank_cap: int,
    aggregate: Aggregate,
    *,
    sync_only: str = "",
) -> Method:
    """Assemble a method whose clients train every column that they receive.

    Args:
        name: Of the method.
        rank_cap: Most columns of a layer, on the server and on every client.
        aggregate: How updates combine.
        sync_only: Why versions cannot be mixed; empty where they can.
    """
    rule = CommonRank(rank_cap)
    return Method(
        name=name,
        allocate=rule.allocate,
        replan=rule.replan,
        gate=no_gate,
        init=partial(initial_state, max_rank=rank_cap),
        redistribute=redistribute_trained,
        aggregate=aggregate,
        spectrum=spectrum_of,
        align=aggregation.alignments,
        export=export,
        sync_only=sync_only,
    )
