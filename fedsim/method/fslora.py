"""FSLoRA: each client trains a random sketch of one global adapter; the server adds the mean change.

Source:
    Fang et al., "Federated sketching LoRA: a flexible framework for heterogeneous collaborative fine-tuning
    of LLMs", ICML 2026, arXiv 2501.19389: client i draws k_i of the r global columns, its forward pass is
    (r / k_i) B S_i A, and it uploads the changes of those columns; the server averages the changes, zero
    elsewhere, and takes a step.

Differs from the source:
    * k_i is the largest rank that bytes, memory and seconds allow at dispatch. The sketch is drawn from the
      assignment's seed, a new one each time.
    * The server's step is plain (``server_rate`` times the mean change; 1 by default). The published code
      also offers Adam, whose old moments would move the model at learning rate zero.
    * Evaluation and export take B A without the factor r / k_i.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from fedsim.lora.factors import Factors
from fedsim.method import aggregate as aggregation
from fedsim.method import pairs
from fedsim.method.bundle import FactorState, Method, Payload, column_seed
from fedsim.method.coupled import CommonRank
from fedsim.method.messages import RankPlan, Update
from fedsim.method.options import Option, check_options, number, whole_number

_KNOWN = {"rank_cap": Option("integer", low=1), "server_rate": Option("number")}


def build(options: Mapping[str, object]) -> Method:
    """Assemble the method.

    Args:
        options: ``rank_cap`` (64): rank of the global adapter (paper: r). ``server_rate`` (1): the server's
            step along the mean change.
    """
    check_options("fslora", options, _KNOWN)
    cap = whole_number(options, "rank_cap", 64)
    combine = partial(aggregate, server_rate=number(options, "server_rate", 1.0))
    return pairs.pair_method("fslora", cap, CommonRank(cap), combine, redistribute)


def redistribute(state: FactorState, plan: RankPlan, seed: int) -> Payload:
    """Return the sketched columns, and the scale that makes the sketch unbiased."""
    prefix, scaling = {}, {}
    for layer, trained in zip(state.shapes, plan.trained, strict=True):
        pair = state.pair[layer.name]
        chosen = pairs.chosen_columns(layer, pair.rank, trained, seed)
        prefix[layer.name] = Factors(lora_a=pair.lora_a[chosen], lora_b=pair.lora_b[:, chosen])
        if trained:
            scaling[layer.name] = pair.rank / trained
    return Payload(prefix, pairs.no_tail(state.shapes), scaling=scaling)


def aggregate(
    state: FactorState,
    updates: Sequence[Update],
    weights: Sequence[float],
    earlier: Mapping[int, FactorState] | None = None,
    *,
    server_rate: float,
) -> FactorState:
    """Add the mean change, each client's in the columns of its sketch."""
    versions = {**(earlier or {}), state.version: state}
    ordered = aggregation.in_order(updates, weights)
    pair = {}
    for index, layer in enumerate(state.shapes):
        before = state.pair[layer.name]
        lora_a, lora_b = before.lora_a.clone(), before.lora_b.clone()
        for update, weight in ordered:
            trained = update.plan.trained[index]
            seed = column_seed(aggregation.version_of(versions, update.base_version), update.assignment)
            chosen = pairs.chosen_columns(layer, before.rank, trained, seed)
            change = aggregation.change_of(update, layer, trained)
            lora_a[chosen] += server_rate * weight * change.lora_a
            lora_b[:, chosen] += server_rate * weight * change.lora_b
        pair[layer.name] = Factors(lora_a=lora_a, lora_b=lora_b)
    return pairs.next_pair(state, pair)
