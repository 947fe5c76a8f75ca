"""HetLoRA: factors of different ranks are padded with zeros and averaged by norm; clients prune themselves.

Source:
    Cho et al., "Heterogeneous LoRA for federated fine-tuning of on-device foundation models", EMNLP 2024,
    arXiv 2401.06432: Z_i = ||B_i A_i||_F / sum_j ||B_j A_j||_F, A = sum_i Z_i A_i and B = sum_i Z_i B_i, each
    padded to the largest rank; client i receives the first r_i columns. The client's loss has the term
    lambda ||B[:, g r_i:]||_F ||A[g r_i:, :]||_F, and where that product has fallen in training, r_i shrinks
    to max(r_min, int(g r_i)). g = 0.99.

Differs from the source:
    * A client's rank is the largest that its budgets allow at dispatch, at most what pruning has left of it.
      Pruning is remembered by the server when the update is aggregated; the source lets the client keep it.
    * One norm, one pruning decision and one weight per client, over all layers together.
    * Where every product is zero the weights are the clients' sample shares.
    * Constant scale instead of alpha / r_i.

Zero-padding scales the columns that only a share c of the weight trained by c^2 in every round.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, get_args

import torch

from fedsim.lora.factors import Factors, columns, squared_norm
from fedsim.method import aggregate as aggregation
from fedsim.method import pairs
from fedsim.method.bundle import FactorState, LocalRule, Method, Payload
from fedsim.method.coupled import CommonRank
from fedsim.method.messages import RankPlan, Update
from fedsim.method.options import Option, check_options

Weights = Literal["norm", "samples"]


@dataclass(frozen=True, slots=True)
class HetLoRAOptions:
    """What a scenario may set.

    Args:
        rank_cap: Largest rank of a client, and rank of the server's pair.
        min_rank: Pruning stops here (paper: r_min).
        pruning: Share of its rank that a pruned client keeps, and from which columns are penalised (paper:
            gamma); 1 prunes and penalises nothing.
        penalty: Strength of the regulariser (paper: lambda).
        weights: By the norm of each product, or by samples.
    """

    rank_cap: int = 64
    min_rank: int = 1
    pruning: float = 0.99
    penalty: float = 1e-3
    weights: Weights = "norm"


_KNOWN = {
    "rank_cap": Option("integer", low=1),
    "min_rank": Option("integer", low=1),
    "pruning": Option("number", high=1.0),
    "penalty": Option("number"),
    "weights": Option("choice", choices=get_args(Weights)),
}


def build(options: Mapping[str, object]) -> Method:
    """Assemble the method from any fields of `HetLoRAOptions`."""
    check_options("hetlora", options, _KNOWN)
    return assemble(HetLoRAOptions(**dict(options)))  # type: ignore[arg-type]  # kinds are checked above


def assemble(options: HetLoRAOptions) -> Method:
    """Assemble the method from its parts."""
    rule = CommonRank(options.rank_cap)
    local = LocalRule(penalty=float(options.penalty), penalty_from=float(options.pruning))
    combine = partial(aggregate, by_norm=options.weights == "norm")
    method = pairs.pair_method(
        "hetlora",
        options.rank_cap,
        rule,
        combine,
        partial(redistribute, rule=local),
        sync_only=pairs.AVERAGES,
    )
    return replace(
        method,
        prune=partial(prune, keep=float(options.pruning), least=options.min_rank),
        own_weights="weights: norm overrides every other weight" if options.weights == "norm" else "",
    )


def redistribute(state: FactorState, plan: RankPlan, seed: int, *, rule: LocalRule) -> Payload:
    """Return the first columns, to be trained with the regulariser."""
    return replace(pairs.redistribute_first(state, plan, seed), rule=rule)


def aggregate(
    state: FactorState,
    updates: Sequence[Update],
    weights: Sequence[float],
    earlier: Mapping[int, FactorState] | None = None,
    *,
    by_norm: bool,
) -> FactorState:
    """Return the weighted means of the zero-padded factors."""
    versions = {**(earlier or {}), state.version: state}
    ordered = aggregation.in_order(updates, weights)
    clients = [
        {
            layer.name: pairs.trained_pair(update, versions, index, layer)
            for index, layer in enumerate(state.shapes)
        }
        for update, _ in ordered
    ]
    given = [weight for _, weight in ordered]
    shares = norm_weights(clients, given) if by_norm else given
    pair = {
        layer.name: pairs.mean_of_factors(
            [(share, client[layer.name]) for share, client in zip(shares, clients, strict=True)],
            state.pair[layer.name].rank,
        )
        for layer in state.shapes
    }
    return pairs.next_pair(state, pair)


def norm_weights(clients: Sequence[Mapping[str, Factors]], otherwise: Sequence[float]) -> list[float]:
    """Return ``||B_i A_i|| / sum_j ||B_j A_j||`` over all layers together.

    Args:
        clients: Adapters after training.
        otherwise: What to return where every product is zero.
    """
    norms = [math.sqrt(math.fsum(squared_norm(pair) for pair in client.values())) for client in clients]
    total = math.fsum(norms)
    return [norm / total for norm in norms] if total > 0.0 else list(otherwise)


def prune(
    state: FactorState,
    updates: Sequence[Update],
    earlier: Mapping[int, FactorState] | None = None,
    *,
    keep: float,
    least: int,
) -> dict[int, int]:
    """Return the new rank of each client whose last columns have lost weight in training."""
    versions = {**(earlier or {}), state.version: state}
    pruned = {}
    for update in updates:
        start = aggregation.version_of(versions, update.base_version)
        before, after = 0.0, 0.0
        for index, layer in enumerate(state.shapes):
            rank = update.plan.trained[index]
            first = int(keep * rank)
            before += last_product(columns(start.pair[layer.name], 0, rank), first)
            after += last_product(pairs.trained_pair(update, versions, index, layer), first)
        if after < before:
            pruned[update.assignment] = max(least, int(keep * max(update.plan.trained)))
    return pruned


def last_product(factors: Factors, first: int) -> float:
    """Return ``||B[:, first:]||_F ||A[first:, :]||_F``."""
    last = columns(factors, first, factors.rank)
    return float(torch.linalg.norm(last.lora_b)) * float(torch.linalg.norm(last.lora_a))
