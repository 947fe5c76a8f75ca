"""raFLoRA: each rank level is averaged over the clients that trained it, so that high ranks do not collapse.

Source:
    Wu et al., "Preventing rank collapse in federated low-rank adaptation with client heterogeneity", arXiv
    2602.13486 (v2), equation 8 and algorithm 1: with levels r^(1) < ... < r^(m) and the slice h of columns in
    (r^(h-1), r^(h)], W = sum_h sum_{i: r_i >= r^(h)} (n_i / N_h) B_i[:, h] A_i[h, :], N_h the samples of
    those clients; then a singular value decomposition, of which client i gets a balanced part.

Differs from the source:
    * Ranks follow from budgets, so levels are multiples of ``level_size`` (1 by default: every column is a
      level of its own) instead of a fixed list. Columns of a client above its last whole level do not count.
    * A level that no participant covers has no mean. ``uncovered: keep`` leaves the global columns there as
      they are; ``drop`` gives them up, as the formula read literally does.
    * Constant scale.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial

import torch

from fedsim.lora.basis import Basis, balanced, compact_svd
from fedsim.lora.factors import Factors, columns, stack
from fedsim.method import aggregate as aggregation
from fedsim.method import spectral
from fedsim.method.bundle import BasisState, Method
from fedsim.method.flexlora import REPLACES
from fedsim.method.messages import Update
from fedsim.method.options import Option, check_options, whole_number, word

_KNOWN = {
    "rank_cap": Option("integer", low=1),
    "level_size": Option("integer", low=1),
    "uncovered": Option("choice", choices=("keep", "drop")),
}


def build(options: Mapping[str, object]) -> Method:
    """Assemble the method.

    Args:
        options: ``rank_cap`` (64): most columns of a layer. ``level_size`` (1): columns per level.
            ``uncovered``: ``keep`` or ``drop`` levels that nobody trained.
    """
    check_options("raflora", options, _KNOWN)
    cap = whole_number(options, "rank_cap", 64)
    rule = partial(
        aggregate,
        max_rank=cap,
        level_size=whole_number(options, "level_size", 1),
        keeps=word(options, "uncovered", "keep") == "keep",
    )
    return spectral.coupled_method("raflora", cap, rule, sync_only=REPLACES)


def aggregate(
    state: BasisState,
    updates: Sequence[Update],
    weights: Sequence[float],
    earlier: Mapping[int, BasisState] | None = None,
    *,
    max_rank: int,
    level_size: int,
    keeps: bool,
) -> BasisState:
    """Average each level over those who trained all of it, and decompose the sum."""
    versions = {**(earlier or {}), state.version: state}
    ordered = aggregation.in_order(updates, weights)
    basis = {}
    for index, layer in enumerate(state.shapes):
        parts = [
            (weight, aggregation.trained_factors(update, versions, index, layer))
            for update, weight in ordered
        ]
        stacks, covered = level_means(parts, level_size)
        if keeps:
            stacks.append(_above(state.basis[layer.name], covered))
        basis[layer.name] = compact_svd(stack(stacks), max_rank) if stacks else state.basis[layer.name]
    return BasisState(state.version + 1, basis, state.shapes, state.seed)


def level_means(parts: Sequence[tuple[float, Factors]], level_size: int) -> tuple[list[Factors], int]:
    """Return the whole levels of each client at their weight there, and the number of covered columns."""
    whole = [(weight, columns(each, 0, each.rank - each.rank % level_size)) for weight, each in parts]
    covered = max(each.rank for _, each in whole)
    present = [math.fsum(weight for weight, each in whole if each.rank > k) for k in range(covered)]
    stacks = []
    for weight, each in whole:
        root = torch.tensor([math.sqrt(weight / present[k]) for k in range(each.rank)])
        root = root.to(each.lora_a.dtype)
        stacks.append(Factors(lora_a=each.lora_a * root[:, None], lora_b=each.lora_b * root))
    return stacks, covered


def _above(basis: Basis, covered: int) -> Factors:
    """Return the global columns that nobody trained."""
    return columns(balanced(basis), covered, basis.rank)
