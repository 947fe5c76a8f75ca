"""FFA-LoRA: the random factor A is shared and frozen; only B is trained, sent and averaged.

Source:
    Sun et al., "Improving LoRA in privacy-preserving federated learning", ICLR 2024, arXiv 2403.12313:
    B = sum_i w_i B_i at a fixed A, so the mean of products is exact and half of the bytes travel.

Differs from the source:
    * Ranks may differ: client i trains the first r_i columns of one shared A, the largest rank that its
      budgets allow, and the server adds ``sum_i w_i (B'_i - B[:, :r_i])``. Averaging zero-padded slices
      instead would shrink what only some clients train. With ``rank`` everybody has the same.
    * A is regenerated from a seed: it costs no byte on either link. Without a gradient for A its input is not
      saved, which the prices take off memory and FLOP.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fedsim.lora.factors import Factors
from fedsim.method import aggregate as aggregation
from fedsim.method import pairs
from fedsim.method.bundle import FactorState, LocalRule, Method, Payload
from fedsim.method.coupled import CommonRank
from fedsim.method.messages import RankPlan, Update
from fedsim.method.options import Option, check_options, given_rank, whole_number
from fedsim.method.private import release_outputs
from fedsim.world.cost import output_half

_KNOWN = {"rank": Option("integer", low=1), "rank_cap": Option("integer", low=1)}


def build(options: Mapping[str, object]) -> Method:
    """Assemble the method.

    Args:
        options: ``rank``: of everybody; without it, each client's own, at most ``rank_cap`` (64).
    """
    check_options("ffa_lora", options, _KNOWN)
    rank = given_rank(options)
    cap = whole_number(options, "rank_cap", 64) if rank is None else rank
    rule = CommonRank(cap) if rank is None else pairs.same_rank(rank)
    method = pairs.pair_method("ffa_lora", cap, rule, aggregate, redistribute)
    return replace(method, charge=output_half, release=release_outputs)


def redistribute(state: FactorState, plan: RankPlan, seed: int) -> Payload:
    """Return the first columns, of which B alone is trained."""
    return replace(pairs.redistribute_first(state, plan, seed), rule=LocalRule(trains="b_only"))


def aggregate(
    state: FactorState,
    updates: Sequence[Update],
    weights: Sequence[float],
    earlier: Mapping[int, FactorState] | None = None,
) -> FactorState:
    """Add the weighted changes of B, each in the columns that were trained."""
    del earlier  # A never changes, so a change of B means the same at every version
    ordered = aggregation.in_order(updates, weights)
    pair = {}
    for index, layer in enumerate(state.shapes):
        before = state.pair[layer.name]
        lora_b = before.lora_b.clone()
        for update, weight in ordered:
            trained = update.plan.trained[index]
            lora_b[:, :trained] += weight * aggregation.change_of(update, layer, trained).lora_b
        pair[layer.name] = Factors(lora_a=before.lora_a, lora_b=lora_b)
    return pairs.next_pair(state, pair)
