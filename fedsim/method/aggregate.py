"""How do updates combine into the next version? By the coverage identity, on factors, for any mix of ranks.

A client changes its prefix and leaves its tail alone, so with coverage ``c_k`` (the weight of those who
trained column k) the next version is ``U diag((1 - c_k) sigma_k) V^T + sum_i w_i P'_i Q'_i``. Nothing is
subtracted: columns that everybody trained drop out, and a zero change leaves the model where it was. This
module does not know when to aggregate or what the weights stand for.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from fedsim.errors import ProtocolError
from fedsim.lora.basis import Basis, balanced, compact_svd, leading, scaled
from fedsim.lora.drift import clipped_cosine, grams
from fedsim.lora.factors import Adapter, Factors, add, columns, moved, pick, stack, truncate, zeros
from fedsim.method.bundle import BasisState
from fedsim.method.messages import Update
from fedsim.method.partial import columns_that_count
from fedsim.seeds import Seeds
from fedsim.world.shape import LayerShape

StateT = TypeVar("StateT")

_WHOLE = 1e-9
"""Weights whose sum is this close to one are taken as a full partition."""


def received_columns(state: BasisState, layer: LayerShape, rank: int) -> Factors:
    """Return the first `rank` columns that every client of a version receives, exact.

    Columns of the basis come first. Columns beyond its rank are fresh: ``P = 0`` and ``Q ~ N(0, 1 / d_in)``,
    drawn from the stream of this version and layer, so that they change nothing until they are trained, and
    that all clients of the version share them.
    """
    basis = state.basis[layer.name]
    known = balanced(leading(basis, rank))
    missing = rank - known.rank
    if missing <= 0:
        return known
    generator = Seeds(state.seed).generator("fresh", state.version, layer.name)
    noise = generator.standard_normal((missing, layer.d_in)) / math.sqrt(layer.d_in)
    fresh = Factors(
        lora_a=torch.from_numpy(noise).to(known.lora_a.dtype),
        lora_b=torch.zeros(layer.d_out, missing, dtype=known.lora_b.dtype),
    )
    return stack([known, fresh])


@dataclass(frozen=True, slots=True, eq=False)
class _Contribution:
    """One client's part in one layer.

    Args:
        version: That it started from.
        weight: Of all of its change.
        start: Its columns as they were.
        change: Of them.
        columns: Which columns they are.
        spared: Weight, on top, of what of its change lies in the newest basis.
    """

    version: int
    weight: float
    start: Factors
    change: Factors
    columns: frozenset[int]
    spared: float


def aggregate(
    state: BasisState,
    updates: Sequence[Update],
    weights: Sequence[float],
    earlier: Mapping[int, BasisState] | None = None,
    *,
    max_rank: int,
) -> BasisState:
    """Make the next version from updates of this version and, under asynchrony, of earlier ones.

    Updates are combined in the order of their assignments, whatever order they come in.

    Args:
        state: The version to replace.
        updates: Changes of trained prefixes, relative to the version each was dispatched with.
        weights: One per update, the same for all layers; their sum is 1, or less where staleness discounts.
            An update with a damping below 1 counts in full only as far as it lies in the newest basis.
        earlier: Older versions by number.
        max_rank: Most columns kept per layer.

    Returns:
        Version ``state.version + 1``.

    Raises:
        ProtocolError: If weights are no partition, or a base version is missing.

    Source:
        docs/design.md, coverage identity. With coverage 1 it is the unbiased rule of FedHL, arXiv 2505.18494.
    """
    versions = {**(earlier or {}), state.version: state}
    ordered = in_order(updates, weights)
    basis = {}
    for index, layer in enumerate(state.shapes):
        starts = _starts(updates, versions, index, layer)
        parts = [_contribution(update, weight, starts, index, layer) for update, weight in ordered]
        basis[layer.name] = _next_basis(layer, parts, versions, state.version, max_rank)
    return BasisState(version=state.version + 1, basis=basis, shapes=state.shapes, seed=state.seed)


def alignments(
    state: BasisState,
    updates: Sequence[Update],
    weights: Sequence[float],
    earlier: Mapping[int, BasisState] | None = None,
) -> dict[int, float]:
    """Return the cosine of each update with the weighted sum of all, over all layers together.

    Scores are those of *updates*. Whole adapters contain the global part and agree with any aggregate, so
    their cosine (the published score) hardly separates clients.

    Returns:
        Assignment id -> cosine in [-1, 1]; 0 for an update that changed nothing.
    """
    versions = {**(earlier or {}), state.version: state}
    ordered = in_order(updates, weights)
    return cosines(ordered, [update_factors(update, versions) for update, _ in ordered])


def cosines(ordered: Sequence[tuple[Update, float]], adapters: Sequence[Adapter]) -> dict[int, float]:
    """Return the cosine of each adapter with the weighted sum of all, over all layers together.

    Args:
        ordered: Updates and their weights.
        adapters: What each stands for, as factors.

    Returns:
        Assignment id -> cosine in [-1, 1]; 0 for a zero adapter.
    """
    gram = torch.zeros(len(ordered), len(ordered), dtype=torch.float64)
    for layer_gram in grams(adapters).values():
        gram += layer_gram
    share = torch.tensor([weight for _, weight in ordered], dtype=torch.float64)
    inner = gram @ share
    norm = math.sqrt(max(0.0, float(share @ inner)))
    own = gram.diagonal().clamp_min(0.0).sqrt()
    return {
        update.assignment: clipped_cosine(float(inner[index]), float(own[index]) * norm)
        for index, (update, _) in enumerate(ordered)
    }


def in_order(updates: Sequence[Update], weights: Sequence[float]) -> list[tuple[Update, float]]:
    """Put updates into the order of their assignments, so that sums do not depend on who came first."""
    check_weights(updates, weights)
    return sorted(zip(updates, weights, strict=True), key=lambda pair: pair[0].assignment)


def weighted(factors: Factors, weight: float) -> Factors:
    """Multiply the product of two factors, evenly on both sides."""
    root = math.sqrt(weight)
    return Factors(lora_a=factors.lora_a * root, lora_b=factors.lora_b * root)


def trained_factors(
    update: Update, versions: Mapping[int, BasisState], index: int, layer: LayerShape
) -> Factors:
    """Return one layer of a client's prefix after training, on the server's own exact start."""
    trained = update.plan.trained[index]
    start = received_columns(version_of(versions, update.base_version), layer, trained)
    return add(start, change_of(update, layer, trained))


def update_factors(update: Update, versions: Mapping[int, BasisState]) -> Adapter:
    """Return thin factors of what an update does to the product, after minus before, per trained layer."""
    state = version_of(versions, update.base_version)
    result = {}
    for layer, trained in zip(state.shapes, update.plan.trained, strict=True):
        if trained:
            start = received_columns(state, layer, trained)
            result[layer.name] = moved(start, change_of(update, layer, trained))
    return result


def check_weights(updates: Sequence[Update], weights: Sequence[float]) -> None:
    """Refuse weights that are no partition of at most one."""
    if len(updates) != len(weights) or not updates:
        raise ProtocolError(
            f"aggregate: expected one weight per update, got {len(weights)} for {len(updates)}"
        )
    if min(weights) < 0.0 or math.fsum(weights) > 1.0 + _WHOLE:
        raise ProtocolError(f"aggregate: expected weights that sum to at most 1, got {list(weights)}")


def version_of(versions: Mapping[int, StateT], version: int) -> StateT:
    """Find a version that an update started from."""
    if version not in versions:
        raise ProtocolError(
            f"aggregate: version {version} was released too early; kept are {sorted(versions)}"
        )
    return versions[version]


def change_of(update: Update, layer: LayerShape, trained: int) -> Factors:
    """Return the change of a trained prefix; a layer that is not in the upload did not change."""
    change = (update.change or {}).get(layer.name)
    if change is None:
        return zeros(layer.d_in, layer.d_out, trained)
    if change.rank != trained:
        raise ProtocolError(
            f"assignment {update.assignment}, {layer.name}: expected a change of {trained} columns, "
            f"got {change.rank}"
        )
    return change


def _starts(
    updates: Sequence[Update], versions: Mapping[int, BasisState], index: int, layer: LayerShape
) -> dict[int, Factors]:
    """Return what clients of each version trained from: one copy, of which each has the first columns."""
    most: dict[int, int] = {}
    for update in updates:
        most[update.base_version] = max(most.get(update.base_version, 0), update.plan.trained[index])
    return {
        version: received_columns(version_of(versions, version), layer, rank)
        for version, rank in most.items()
    }


def _contribution(
    update: Update, weight: float, starts: Mapping[int, Factors], index: int, layer: LayerShape
) -> _Contribution:
    """Look up what one client started from and changed in one layer."""
    trained = update.plan.trained[index]
    start = truncate(starts[update.base_version], trained)
    change = change_of(update, layer, trained)
    came = columns_that_count(update, layer, trained)
    if len(came) < trained:
        start, change = pick(start, came), pick(change, came)
    return _Contribution(
        update.base_version,
        weight * update.damping,
        start,
        change,
        frozenset(came),
        weight * (1.0 - update.damping),
    )


def _next_basis(
    layer: LayerShape,
    parts: Sequence[_Contribution],
    versions: Mapping[int, BasisState],
    current: int,
    max_rank: int,
) -> Basis:
    """Stack what is left of the old columns and what came in, and decompose the stack.

    A layer that nobody trained keeps its basis: versions share what has not changed.
    """
    if not any(part.columns for part in parts):
        return versions[current].basis[layer.name]
    stacks = [_uncovered(versions[current].basis[layer.name], parts, current)]
    stacks += [
        _taken_back(versions[version].basis[layer.name], parts, version)
        for version in sorted({part.version for part in parts} - {current})
    ]
    for part in parts:
        stacks.append(weighted(add(part.start, part.change), part.weight))
    stacks += _inside(versions[current].basis[layer.name], parts)
    return compact_svd(stack(stacks), max_rank)


def _inside(basis: Basis, parts: Sequence[_Contribution]) -> list[Factors]:
    """Return ``U (sum_i w_i U^T D_i V) V^T``: the part of old updates that is not damped.

    All of them share one small core, so they add no more columns than the basis has.
    """
    old = [part for part in parts if part.spared > 0.0]
    if not old or not basis.rank:
        return []
    core = torch.zeros(basis.rank, basis.rank, dtype=torch.float64)
    for part in old:
        move = moved(part.start, part.change)
        left, right = basis.u.double().T @ move.lora_b.double(), move.lora_a.double() @ basis.vh.double().T
        core += part.spared * left @ right
    u, sigma, vh = torch.linalg.svd(core)
    root, dtype = sigma.sqrt(), basis.u.dtype
    return [
        Factors(
            lora_a=(root[:, None] * vh).to(dtype) @ basis.vh,
            lora_b=basis.u @ (u * root).to(dtype),
        )
    ]


def _uncovered(basis: Basis, parts: Sequence[_Contribution], version: int) -> Factors:
    """Return ``U diag((1 - c_k) sigma_k) V^T`` without the columns that all clients trained.

    The uncovered share is summed over those who did not train a column, so it is zero by counting where there
    is nobody.
    """
    total = math.fsum(part.weight for part in parts)
    spare = 0.0 if abs(1.0 - total) <= _WHOLE else 1.0 - total
    share = [
        spare + math.fsum(part.weight for part in parts if part.version != version or k not in part.columns)
        for k in range(basis.rank)
    ]
    return _weighted(basis, share)


def _taken_back(basis: Basis, parts: Sequence[_Contribution], version: int) -> Factors:
    """Return ``- U diag(c_k sigma_k) V^T`` for the clients of an earlier version."""
    covered = [
        math.fsum(part.weight for part in parts if part.version == version and k in part.columns)
        for k in range(basis.rank)
    ]
    taken = _weighted(basis, covered)
    return Factors(lora_a=taken.lora_a, lora_b=-taken.lora_b)


def _weighted(basis: Basis, share: Sequence[float]) -> Factors:
    """Return the columns of a basis with a positive share, split evenly over both factors."""
    weight = torch.tensor(share, dtype=torch.float64)
    root = (weight * basis.sigma).sqrt()
    whole = scaled(basis, root, root)
    kept = torch.nonzero(weight > 0.0).flatten()
    return Factors(lora_a=whole.lora_a[kept], lora_b=whole.lora_b[:, kept])


def split_plan(state: BasisState, layer: LayerShape, total: int, trained: int) -> tuple[Factors, Factors]:
    """Return the prefix that a client trains and the tail that it keeps frozen."""
    received = received_columns(state, layer, total)
    return truncate(received, trained), columns(received, trained, total)
