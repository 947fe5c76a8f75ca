"""FedHomoLoRA: everybody trains one pair of factors of one rank; both factors are averaged (FedIT).

Source:
    Zhang et al., "Towards building the federated GPT: federated instruction tuning", ICASSP 2024, arXiv
    2305.05644: A = sum_i w_i A_i and B = sum_i w_i B_i. The published FedHera code runs it as the homogeneous
    baseline, at the rank of its weakest tier.

Differs from the source:
    * The rank is given, or the smallest over the fleet of the largest rank that bytes, memory and seconds
      allow at the start of the run. A device that cannot carry it later is declined at that time.
    * Factors start at constant scale with A ~ N(0, 1 / d_in).

The product of averages is not the average of products: the rule is biased unless all updates agree.
"""

from collections.abc import Mapping, Sequence

from fedsim.method import aggregate as aggregation
from fedsim.method import pairs
from fedsim.method.bundle import FactorState, Method
from fedsim.method.messages import Update
from fedsim.method.options import Option, check_options, given_rank, whole_number

_KNOWN = {"rank": Option("integer", low=1), "rank_cap": Option("integer", low=1)}


def build(options: Mapping[str, object]) -> Method:
    """Assemble the method.

    Args:
        options: ``rank``: of everybody; without it, the fleet's common rank, at most ``rank_cap`` (64).
    """
    check_options("fedhomolora", options, _KNOWN)
    cap = whole_number(options, "rank_cap", 64)
    return pairs.of_one_rank(assemble, given_rank(options), cap)


def assemble(rank: int) -> Method:
    """Assemble the method at one rank."""
    return pairs.pair_method("fedhomolora", rank, pairs.same_rank(rank), aggregate, sync_only=pairs.AVERAGES)


def aggregate(
    state: FactorState,
    updates: Sequence[Update],
    weights: Sequence[float],
    earlier: Mapping[int, FactorState] | None = None,
) -> FactorState:
    """Return the weighted means of both factors."""
    versions = {**(earlier or {}), state.version: state}
    ordered = aggregation.in_order(updates, weights)
    pair = {
        layer.name: pairs.mean_of_factors(
            [(weight, pairs.trained_pair(update, versions, index, layer)) for update, weight in ordered],
            state.pair[layer.name].rank,
        )
        for index, layer in enumerate(state.shapes)
    }
    return pairs.next_pair(state, pair)
