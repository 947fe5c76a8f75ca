"""Fed-PLoRA: one-rank modules; a client trains some of them and folds the others into its frozen base.

Source:
    Zhang et al., "Heterogeneous federated fine-tuning with parallel one-rank adaptation", ICLR 2026, arXiv
    2602.16936: W = sum_{j <= R} b_j a_j; client i trains r_i of the R modules, the others are merged into its
    weights, and each module is averaged over the clients that trained it.

Differs from the source:
    * r_i is the largest rank that memory and seconds allow; which modules is drawn from the assignment's
      seed. All R modules are downloaded, as in the source: a device whose link cannot carry R columns of
      every layer is declined.
    * Factors of a module are averaged, not products.
    * The base is never written: merged modules run as a frozen term.
"""

from collections.abc import Mapping, Sequence

import torch

from fedsim.lora.factors import Factors, add
from fedsim.method import aggregate as aggregation
from fedsim.method import pairs
from fedsim.method.bundle import FactorState, Method, Payload, column_seed
from fedsim.method.coupled import CommonRank
from fedsim.method.messages import RankPlan, Update
from fedsim.method.options import Option, check_options, whole_number

_KNOWN = {"rank_cap": Option("integer", low=1)}


def build(options: Mapping[str, object]) -> Method:
    """Assemble the method.

    Args:
        options: ``rank_cap`` (16): number of one-rank modules of each layer (paper: R).
    """
    check_options("fed_plora", options, _KNOWN)
    cap = whole_number(options, "rank_cap", 16)
    rule = CommonRank(cap, sent=cap)
    return pairs.pair_method("fed_plora", cap, rule, aggregate, redistribute, sync_only=pairs.AVERAGES)


def redistribute(state: FactorState, plan: RankPlan, seed: int) -> Payload:
    """Return the modules that the client trains, and all others for its base."""
    prefix, merged = {}, {}
    for layer, trained in zip(state.shapes, plan.trained, strict=True):
        pair = state.pair[layer.name]
        chosen = pairs.chosen_columns(layer, pair.rank, trained, seed)
        frozen = torch.ones(pair.rank, dtype=torch.bool)
        frozen[chosen] = False
        prefix[layer.name] = Factors(lora_a=pair.lora_a[chosen], lora_b=pair.lora_b[:, chosen])
        merged[layer.name] = Factors(lora_a=pair.lora_a[frozen], lora_b=pair.lora_b[:, frozen])
    return Payload(prefix, pairs.no_tail(state.shapes), merged=merged)


def aggregate(
    state: FactorState,
    updates: Sequence[Update],
    weights: Sequence[float],
    earlier: Mapping[int, FactorState] | None = None,
) -> FactorState:
    """Average each module over the clients that trained it; modules that nobody trained stay."""
    versions = {**(earlier or {}), state.version: state}
    ordered = aggregation.in_order(updates, weights)
    pair = {}
    for index, layer in enumerate(state.shapes):
        parts = []
        for update, weight in ordered:
            trained = update.plan.trained[index]
            base = aggregation.version_of(versions, update.base_version)
            start = base.pair[layer.name]
            chosen = pairs.chosen_columns(layer, start.rank, trained, column_seed(base, update.assignment))
            mine = Factors(lora_a=start.lora_a[chosen], lora_b=start.lora_b[:, chosen])
            parts.append((weight, chosen, add(mine, aggregation.change_of(update, layer, trained))))
        pair[layer.name] = pairs.columnwise_mean(state.pair[layer.name], parts)
    return pairs.next_pair(state, pair)
