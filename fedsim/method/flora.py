"""FLoRA: updates are stacked, every client folds the whole stack into its base and starts afresh.

Source:
    Wang et al., "FLoRA: federated fine-tuning large language models with heterogeneous low-rank
    adaptations", NeurIPS 2024, arXiv 2409.05976: A = [w_1 A_1; w_2 A_2; ...] and B = [B_1, B_2, ...], whose
    product is the exact sum; clients merge it and restart with A random, B = 0.

Differs from the source:
    * Ranks are the largest that bytes, memory and seconds allow at dispatch.
    * A client that missed rounds is charged what it missed, in the cheapest form: the stacks themselves, the
      compressed global term, or a dense matrix. The source takes every client to be there in every round.
      The server knows that a client holds a version when an update from it has been aggregated.
    * The base is never written: what is merged runs as a frozen term of rank at most min(d_in, d_out).
    * Random directions are drawn on the device, so a restart costs no byte on the downlink.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from fedsim.lora.basis import balanced, compact_svd
from fedsim.lora.factors import Factors, add, stack
from fedsim.method import aggregate as aggregation
from fedsim.method import pairs, spectral
from fedsim.method.bundle import BasisState, Method, Payload, column_seed
from fedsim.method.coupled import CommonRank, what_was_missed
from fedsim.method.messages import RankPlan, Update
from fedsim.method.options import Option, check_options, whole_number
from fedsim.method.tail import no_gate
from fedsim.seeds import Seeds
from fedsim.world.cost import Prices
from fedsim.world.shape import LayerShape

_KNOWN = {"rank_cap": Option("integer", low=1)}
_WHOLE = 1 << 30


def build(options: Mapping[str, object]) -> Method:
    """Assemble the method.

    Args:
        options: ``rank_cap`` (8): most columns that a client trains in a layer. The stack of a cohort, which
            everybody downloads, is as many times larger, so links set a low limit.
    """
    check_options("flora", options, _KNOWN)
    rule = CommonRank(whole_number(options, "rank_cap", 8), merged=what_was_missed)
    return Method(
        name="flora",
        allocate=rule.allocate,
        replan=rule.replan,
        gate=no_gate,
        init=partial(spectral.initial_state, max_rank=_WHOLE),
        redistribute=redistribute,
        aggregate=aggregate,
        spectrum=spectral.spectrum_of,
        align=pairs.alignments_by(redistribute),
        export=spectral.export,
        charge=restart_is_free,
    )


def restart_is_free(prices: Prices) -> Prices:
    """Charge the downlink for what is merged, and nothing for random directions."""
    return replace(prices, down_bytes=np.zeros_like(prices.down_bytes), merge_bytes=prices.down_bytes)


def redistribute(state: BasisState, plan: RankPlan, seed: int) -> Payload:
    """Return fresh factors of the client's own, and everything aggregated so far as part of its base."""
    prefix = {
        layer.name: _restart(layer, trained, seed)
        for layer, trained in zip(state.shapes, plan.trained, strict=True)
    }
    merged = {name: balanced(basis) for name, basis in state.basis.items() if basis.rank}
    return Payload(prefix, pairs.no_tail(state.shapes), merged=merged)


def _restart(layer: LayerShape, rank: int, seed: int) -> Factors:
    """Return ``A ~ N(0, 1 / d_in)`` and ``B = 0``."""
    generator = Seeds(seed).generator("restart", layer.name)
    noise = generator.standard_normal((rank, layer.d_in)) / math.sqrt(layer.d_in)
    return Factors(lora_a=torch.from_numpy(noise).float(), lora_b=torch.zeros(layer.d_out, rank))


def aggregate(
    state: BasisState,
    updates: Sequence[Update],
    weights: Sequence[float],
    earlier: Mapping[int, BasisState] | None = None,
) -> BasisState:
    """Add the stack of all updates to what was merged before; nothing is cut but rounding noise."""
    versions = {**(earlier or {}), state.version: state}
    ordered = aggregation.in_order(updates, weights)
    basis = {}
    for index, layer in enumerate(state.shapes):
        stacks = [balanced(state.basis[layer.name])]
        for update, weight in ordered:
            trained = update.plan.trained[index]
            start_seed = column_seed(aggregation.version_of(versions, update.base_version), update.assignment)
            after = add(_restart(layer, trained, start_seed), aggregation.change_of(update, layer, trained))
            stacks.append(aggregation.weighted(after, weight))
        basis[layer.name] = compact_svd(stack(stacks))
    return replace(state, version=state.version + 1, basis=basis)
