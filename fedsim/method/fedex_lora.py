"""FedEx-LoRA: factors are averaged, and what the average misses is added to the frozen base.

Source:
    Singhal et al., "FedEx-LoRA: exact aggregation for federated and efficient fine-tuning of large language
    models", ACL 2025, arXiv 2410.09432: A = mean A_i, B = mean B_i, and the residual mean(B_i A_i) - B A goes
    into the base weights of every client.

Differs from the source:
    * Weights are sample shares; the published code takes uniform means.
    * The residual is computed as ``sum_i w_i (B_i - B)(A_i - A)``: the same matrix, without cancellation.
    * A client that missed rounds is charged the residuals that it missed, at most the whole residual
      compressed. The source takes every client to be there in every round.
    * The base is never written: residuals run as a frozen term of rank at most min(d_in, d_out).
    * One rank for everybody: given, or the fleet's common rank, as in `fedsim.method.fedhomolora`.
"""

from collections.abc import Mapping, Sequence

from fedsim.lora.basis import Basis, balanced, compact_svd
from fedsim.lora.factors import Factors, stack
from fedsim.method import aggregate as aggregation
from fedsim.method import pairs
from fedsim.method.bundle import FactorState, Method
from fedsim.method.coupled import what_was_missed
from fedsim.method.messages import Update
from fedsim.method.options import Option, check_options, given_rank, whole_number

_KNOWN = {"rank": Option("integer", low=1), "rank_cap": Option("integer", low=1)}


def build(options: Mapping[str, object]) -> Method:
    """Assemble the method.

    Args:
        options: ``rank``: of everybody; without it, the fleet's common rank, at most ``rank_cap`` (64).
    """
    check_options("fedex_lora", options, _KNOWN)
    cap = whole_number(options, "rank_cap", 64)
    return pairs.of_one_rank(assemble, given_rank(options), cap)


def assemble(rank: int) -> Method:
    """Assemble the method at one rank."""
    rule = pairs.same_rank(rank, merged=what_was_missed)
    return pairs.pair_method("fedex_lora", rank, rule, aggregate, sync_only=pairs.AVERAGES)


def aggregate(
    state: FactorState,
    updates: Sequence[Update],
    weights: Sequence[float],
    earlier: Mapping[int, FactorState] | None = None,
) -> FactorState:
    """Return the mean factors, and the residual added to what was merged before."""
    versions = {**(earlier or {}), state.version: state}
    ordered = aggregation.in_order(updates, weights)
    pair: dict[str, Factors] = {}
    merged: dict[str, Basis] = {}
    for index, layer in enumerate(state.shapes):
        parts = [(weight, pairs.trained_pair(update, versions, index, layer)) for update, weight in ordered]
        mean = pairs.mean_of_factors(parts, state.pair[layer.name].rank)
        stacks = [aggregation.weighted(_difference(each, mean), weight) for weight, each in parts]
        if layer.name in state.merged:
            stacks.append(balanced(state.merged[layer.name]))
        pair[layer.name], merged[layer.name] = mean, compact_svd(stack(stacks))
    return pairs.next_pair(state, pair, merged)


def _difference(left: Factors, right: Factors) -> Factors:
    return Factors(lora_a=left.lora_a - right.lora_a, lora_b=left.lora_b - right.lora_b)
