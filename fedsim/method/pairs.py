"""What do methods share whose state is a pair of factors per layer?

The first version, truncation for a client, averages of factors, and the fleet's common rank.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from fedsim.lora.basis import Basis, balanced, compact_svd
from fedsim.lora.factors import Adapter, Factors, moved, pad, stack, truncate, zeros
from fedsim.method import aggregate as aggregation
from fedsim.method import spectral
from fedsim.method.bundle import (
    Aggregate,
    Align,
    FactorState,
    Method,
    Payload,
    Redistribute,
    State,
    column_seed,
)
from fedsim.method.coupled import CommonRank, Merged, fleet_rank, nothing_merged
from fedsim.method.events import Spectrum
from fedsim.method.messages import Budget, RankPlan, Update
from fedsim.method.tail import no_gate
from fedsim.seeds import Seeds
from fedsim.world.cost import Prices
from fedsim.world.shape import LayerShape

AVERAGES = "averages of factors of different versions are no adapter of any version"


def initial_pair(
    shapes: tuple[LayerShape, ...], seed: int, adapter: Adapter | None, *, rank: int
) -> FactorState:
    """Return version 0: ``B = 0`` and ``A ~ N(0, 1 / d_in)``, or an adapter in balanced factors first.

    Raises:
        ScenarioError: If the adapter does not fit the model.
    """
    start = spectral.initial_state(shapes, seed, adapter, max_rank=rank)
    pair = {layer.name: aggregation.received_columns(start, layer, rank) for layer in shapes}
    return FactorState(0, pair, {}, shapes, seed)


def redistribute_first(state: FactorState, plan: RankPlan, seed: int) -> Payload:
    """Return the first trained columns of the pair, and the merged term for the base."""
    del seed
    prefix = {
        layer.name: truncate(state.pair[layer.name], trained)
        for layer, trained in zip(state.shapes, plan.trained, strict=True)
    }
    return Payload(prefix, no_tail(state.shapes), merged=merged_factors(state))


def no_tail(shapes: Sequence[LayerShape]) -> dict[str, Factors]:
    """Return a tail without columns."""
    return {layer.name: zeros(layer.d_in, layer.d_out) for layer in shapes}


def merged_factors(state: FactorState) -> dict[str, Factors]:
    """Return the merged term as balanced factors, layers of rank 0 left out."""
    return {name: balanced(basis) for name, basis in state.merged.items() if basis.rank}


def export_pair(state: FactorState) -> Adapter:
    """Return the pair and the merged term as one adapter."""
    merged = merged_factors(state)
    return {
        name: stack([factors, merged[name]]) if name in merged else factors
        for name, factors in state.pair.items()
    }


def spectrum_of_pair(state: FactorState) -> Spectrum:
    """Return the singular values of the whole adapter per layer."""
    whole = export_pair(state)
    return {
        layer.name: np.asarray(compact_svd(whole[layer.name]).sigma.numpy(), dtype=np.float64)
        for layer in state.shapes
    }


def next_pair(
    state: FactorState, pair: Mapping[str, Factors], merged: Mapping[str, Basis] | None = None
) -> FactorState:
    """Return the next version."""
    kept = state.merged if merged is None else merged
    return replace(state, version=state.version + 1, pair=pair, merged=kept)


def trained_pair(
    update: Update, versions: Mapping[int, FactorState], index: int, layer: LayerShape
) -> Factors:
    """Return one layer of a client's first columns after training, on the server's own exact start."""
    trained = update.plan.trained[index]
    start = truncate(aggregation.version_of(versions, update.base_version).pair[layer.name], trained)
    change = aggregation.change_of(update, layer, trained)
    return Factors(lora_a=start.lora_a + change.lora_a, lora_b=start.lora_b + change.lora_b)


def mean_of_factors(parts: Sequence[tuple[float, Factors]], rank: int) -> Factors:
    """Return the weighted mean of factors, number by number, zero columns appended up to a rank."""
    padded = [(weight, pad(factors, rank)) for weight, factors in parts]
    first = padded[0][1]
    lora_a, lora_b = torch.zeros_like(first.lora_a), torch.zeros_like(first.lora_b)
    for weight, factors in padded:
        lora_a = lora_a + weight * factors.lora_a
        lora_b = lora_b + weight * factors.lora_b
    return Factors(lora_a=lora_a, lora_b=lora_b)


def columnwise_mean(before: Factors, parts: Sequence[tuple[float, torch.Tensor, Factors]]) -> Factors:
    """Return, for each column, the weighted mean over those who trained it; other columns stay.

    Args:
        before: The global pair.
        parts: Weight, indices of the trained columns (int64), and those columns after training.
    """
    dtype = before.lora_a.dtype
    weight = torch.zeros(before.rank, dtype=dtype)
    lora_a, lora_b = torch.zeros_like(before.lora_a), torch.zeros_like(before.lora_b)
    for share, index, after in parts:
        weight[index] += share
        lora_a[index] += share * after.lora_a
        lora_b[:, index] += share * after.lora_b
    trained = weight > 0
    divisor = torch.where(trained, weight, torch.ones_like(weight))
    return Factors(
        lora_a=torch.where(trained[:, None], lora_a / divisor[:, None], before.lora_a),
        lora_b=torch.where(trained, lora_b / divisor, before.lora_b),
    )


def chosen_columns(layer: LayerShape, rank: int, trained: int, seed: int) -> torch.Tensor:
    """Return which columns an assignment trains: the first of a random order of its own, ascending int64."""
    order = Seeds(seed).generator("columns", layer.name).permutation(rank)
    return torch.from_numpy(np.sort(order[:trained]))


def update_of(redistribute: Redistribute, state: State, update: Update) -> dict[str, Factors]:
    """Return thin factors of what an update does to the product, for any method.

    Args:
        redistribute: The method's rule.
        state: The version that the update started from.
        update: What came back.
    """
    payload = redistribute(state, update.plan, column_seed(state, update.assignment))
    return {
        name: aggregation.weighted(moved(payload.prefix[name], change), payload.scaling.get(name, 1.0))
        for name, change in (update.change or {}).items()
    }


def alignments_by(redistribute: Redistribute) -> Align:
    """Return the rule that compares updates with their weighted sum, for a method's redistribution."""

    def align(
        state: State,
        updates: Sequence[Update],
        weights: Sequence[float],
        earlier: Mapping[int, State] | None = None,
    ) -> dict[int, float]:
        versions = {**(earlier or {}), state.version: state}
        ordered = aggregation.in_order(updates, weights)
        adapters = [
            update_of(redistribute, aggregation.version_of(versions, update.base_version), update)
            for update, _ in ordered
        ]
        return aggregation.cosines(ordered, adapters)

    return align


def pair_method(
    name: str,
    rank: int,
    rule: CommonRank,
    aggregate: Aggregate,
    redistribute: Redistribute = redistribute_first,
    *,
    sync_only: str = "",
) -> Method:
    """Assemble a method whose state is a pair of factors per layer.

    Args:
        name: Of the method.
        rank: Of the server's pair.
        rule: Which rank each client gets.
        aggregate: How updates combine.
        redistribute: What a client receives of a version.
        sync_only: Why versions cannot be mixed; empty where they can.
    """
    return Method(
        name=name,
        allocate=rule.allocate,
        replan=rule.replan,
        gate=no_gate,
        init=partial(initial_pair, rank=rank),
        redistribute=redistribute,
        aggregate=aggregate,
        spectrum=spectrum_of_pair,
        align=alignments_by(redistribute),
        export=export_pair,
        sync_only=sync_only,
    )


def for_whole_fleet(cap: int, bound: Callable[[int], Method]) -> Callable[[Sequence[Budget], Prices], Method]:
    """Return the hook that binds a method to the largest rank that every usable device can carry."""

    def bind(budgets: Sequence[Budget], prices: Prices) -> Method:
        return bound(fleet_rank(budgets, prices, cap))

    return bind


def same_rank(rank: int, merged: Merged = nothing_merged) -> CommonRank:
    """Return the allocation in which everybody has one rank, or is declined."""
    return CommonRank(rank, least=rank, merged=merged)


def of_one_rank(assemble: Callable[[int], Method], rank: int | None, cap: int) -> Method:
    """Return a homogeneous method at a given rank; without one, at the cap until it is bound to a fleet."""
    if rank is not None:
        return assemble(rank)
    return replace(assemble(cap), for_fleet=for_whole_fleet(cap, assemble))
