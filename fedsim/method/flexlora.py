"""FlexLoRA: clients train as many columns as they can; whole adapters are averaged and decomposed again.

Source:
    Bai et al., "Federated fine-tuning of large language models under heterogeneous tasks and client
    resources", NeurIPS 2024, arXiv 2402.11505: W = sum_i w_i s_i B_i A_i, then a singular value
    decomposition, of which client i receives the first r_i columns.

Differs from the source:
    * Ranks are the largest that bytes, memory and seconds allow at dispatch, not drawn from a fixed list.
    * Factors are balanced, U sqrt(S) and sqrt(S) V^T, at constant scale. The source puts S on one side and
      scales by alpha / r_i, so its step length depends on the rank.
    * Optimizer, local steps and learning-rate decay are those of the scenario, the same for all methods.

A column that only some clients received keeps their share of weight and loses the rest: at learning rate
zero W becomes U diag(c sigma) V^T with coverage c.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from fedsim.lora.basis import compact_svd
from fedsim.lora.factors import stack
from fedsim.method import aggregate as aggregation
from fedsim.method import spectral
from fedsim.method.bundle import BasisState, Method
from fedsim.method.messages import Update
from fedsim.method.options import Option, check_options, whole_number

REPLACES = "whole adapters replace the model, so columns that an old version lacked would be lost"

_KNOWN = {"rank_cap": Option("integer", low=1)}


def build(options: Mapping[str, object]) -> Method:
    """Assemble the method.

    Args:
        options: ``rank_cap`` (64): most columns of a layer, on the server and on every client.
    """
    check_options("flexlora", options, _KNOWN)
    cap = whole_number(options, "rank_cap", 64)
    return spectral.coupled_method("flexlora", cap, partial(aggregate, max_rank=cap), sync_only=REPLACES)


def aggregate(
    state: BasisState,
    updates: Sequence[Update],
    weights: Sequence[float],
    earlier: Mapping[int, BasisState] | None = None,
    *,
    max_rank: int,
) -> BasisState:
    """Return the decomposition of ``sum_i w_i P'_i Q'_i``.

    Source:
        arXiv 2402.11505, aggregation step: the weighted mean of full-size updates.
    """
    versions = {**(earlier or {}), state.version: state}
    ordered = aggregation.in_order(updates, weights)
    basis = {}
    for index, layer in enumerate(state.shapes):
        parts = [
            aggregation.weighted(aggregation.trained_factors(update, versions, index, layer), weight)
            for update, weight in ordered
        ]
        basis[layer.name] = compact_svd(stack(parts), max_rank)
    return BasisState(state.version + 1, basis, state.shapes, state.seed)
