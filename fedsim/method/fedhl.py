"""FedHL: clients start from truncations of the global model; the server adds their unbiased changes.

Source:
    Peng et al., "FedHL: federated learning for heterogeneous low-rank adaptation via unbiased aggregation",
    arXiv 2505.18494: client i starts at the truncated decomposition W_t^{r_i}, and W_{t+1} = W_t + sum_i p_i
    (W_i - W_t^{r_i}); p_i = (1 / (e_i^2 + eps)) / sum_j (1 / (e_j^2 + eps)), e_i = ||W_t - W_t^{r_i}||_F^2
    and eps = 1e-6 (equations 8 and 15, as the published FedHera code quotes them).

Differs from the source:
    * Weights are the clients' sample shares by default (``weights: samples``). With ``weights: error``, the
      published rule, clients of full rank all weigh the same, and one client without truncation error
      outweighs everybody.
    * Ranks are the largest that bytes, memory and seconds allow at dispatch. Factors are balanced at constant
      scale.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

from fedsim.method import aggregate as aggregation
from fedsim.method import spectral
from fedsim.method.bundle import BasisState, Method
from fedsim.method.messages import Update
from fedsim.method.options import Option, check_options, whole_number, word
from fedsim.method.private import release_basis

Weights = Literal["samples", "error"]
EPSILON = 1e-6

_KNOWN = {
    "rank_cap": Option("integer", low=1),
    "weights": Option("choice", choices=("samples", "error")),
}


def build(options: Mapping[str, object]) -> Method:
    """Assemble the method.

    Args:
        options: ``rank_cap`` (64): most columns of a layer. ``weights``: ``samples`` or ``error``.
    """
    check_options("fedhl", options, _KNOWN)
    cap = whole_number(options, "rank_cap", 64)
    if word(options, "weights", "samples") == "samples":
        method = spectral.coupled_method("fedhl", cap, partial(aggregation.aggregate, max_rank=cap))
        return replace(method, release=partial(release_basis, max_rank=cap))
    method = spectral.coupled_method("fedhl", cap, partial(aggregate_by_error, max_rank=cap))
    return replace(method, own_weights="weights: error overrides every other weight; use samples")


def aggregate_by_error(
    state: BasisState,
    updates: Sequence[Update],
    weights: Sequence[float],
    earlier: Mapping[int, BasisState] | None = None,
    *,
    max_rank: int,
) -> BasisState:
    """Combine changes, each weighted by the inverse square of what its truncation left out."""
    versions = {**(earlier or {}), state.version: state}
    return aggregation.aggregate(
        state, updates, error_weights(updates, weights, versions), earlier, max_rank=max_rank
    )


def error_weights(
    updates: Sequence[Update], weights: Sequence[float], versions: Mapping[int, BasisState]
) -> list[float]:
    """Return ``p_i``, scaled to the sum of the given weights, which staleness may have lowered."""
    inverse = [
        1.0 / (truncation_error(aggregation.version_of(versions, update.base_version), update) ** 2 + EPSILON)
        for update in updates
    ]
    scale = math.fsum(weights) / math.fsum(inverse)
    return [value * scale for value in inverse]


def truncation_error(state: BasisState, update: Update) -> float:
    """Return ``||W - W^r||_F^2`` over all layers: the energy of the columns that were not received."""
    return math.fsum(
        float((state.basis[layer.name].sigma[trained:] ** 2).sum())
        for layer, trained in zip(state.shapes, update.plan.trained, strict=True)
    )
