"""How much may one update count? Rules that weigh updates by lengths and angles, before they are combined.

A rule sees the inner products of the updates, as products ``dP Q``, and nothing else: no dense matrix, no
order of arrival, no names. It answers with one factor per update, on top of the weight that the update has
anyway; a factor of zero sets it aside. Norms bound what one client can do; they do not tell honest clients
from dishonest ones. Of the three, only the geometric median sees directions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from fedsim.lora.drift import grams
from fedsim.method import aggregate as aggregation
from fedsim.method.bundle import Method, State
from fedsim.method.messages import Defence, Update
from fedsim.method.pairs import update_of

Gram = np.ndarray
Rule = Callable[[Gram, np.ndarray], np.ndarray]
"""(inner products of the updates, their weights) -> factor per update, 0 or more."""

_ROUNDS = 200
_STILL = 1e-12
_NEAR = 1e-6


def clip(bound: float | None) -> Rule:
    """Return the rule that shortens every update to a bound.

    Args:
        bound: Of the Frobenius norm over all layers; the median norm of those combined where None.
    """
    return partial(_clipped, bound=bound)


def trim(share: float) -> Rule:
    """Return the rule that sets the longest and the shortest updates aside.

    Args:
        share: Of all updates, at either end, below a half; rounded down.
    """
    return partial(_trimmed, share=share)


def geometric_median() -> Rule:
    """Return the rule whose weighted mean has the least sum of weighted distances to the updates.

    Source:
        Pillutla, Kakade and Harchaoui, "Robust aggregation for federated learning", IEEE Transactions on
        Signal Processing 70, 2022: the smoothed Weiszfeld iteration, here on inner products alone.
    """
    return _median


def _clipped(gram: Gram, weights: np.ndarray, *, bound: float | None) -> np.ndarray:
    del weights
    norms = norms_of(gram)
    limit = float(np.median(norms)) if bound is None else bound
    long = norms > limit
    return np.where(long, limit / np.where(long, norms, 1.0), 1.0)


def _trimmed(gram: Gram, weights: np.ndarray, *, share: float) -> np.ndarray:
    norms = norms_of(gram)
    cut = int(share * len(norms))
    kept = np.sort(np.argsort(norms, kind="stable")[cut : len(norms) - cut])
    factors = np.zeros(len(norms))
    factors[kept] = weights.sum() / weights[kept].sum() if weights[kept].sum() > 0.0 else 1.0
    return factors


def _median(gram: Gram, weights: np.ndarray) -> np.ndarray:
    total = float(weights.sum())
    norms = norms_of(gram)
    near = _NEAR * float(np.median(norms))
    if total <= 0.0 or near <= 0.0:
        return np.ones(len(norms))
    shares = weights / total
    plain = shares
    for _ in range(_ROUNDS):
        distances = np.sqrt(np.maximum(0.0, norms**2 - 2.0 * gram @ shares + shares @ gram @ shares))
        nearer = plain / np.maximum(distances, near)
        moved = nearer / nearer.sum()
        still = float(np.abs(moved - shares).max()) < _STILL
        shares = moved
        if still:
            break
    factors: np.ndarray = np.divide(shares, plain, out=np.zeros_like(shares), where=plain > 0.0)
    return factors


def norms_of(gram: Gram) -> np.ndarray:
    """Return the norms of the updates."""
    return np.asarray(np.sqrt(np.maximum(0.0, np.diagonal(gram))))


@dataclass(frozen=True, slots=True, eq=False)
class Weighed:
    """Updates that count, after a rule.

    Args:
        updates: Those that are not set aside.
        weights: Of these.
        aside: Assignment -> why it was set aside.
        defence: For the record.
    """

    updates: tuple[Update, ...]
    weights: tuple[float, ...]
    aside: Mapping[int, str]
    defence: Defence


def weigh(
    rule: Rule,
    method: Method,
    versions: Mapping[int, State],
    updates: Sequence[Update],
    weights: Sequence[float],
) -> Weighed:
    """Apply a rule to the updates that make a version.

    Args:
        rule: From `clip`, `trim` or `geometric_median`.
        method: Says what an update does to the product.
        versions: Those that the updates started from.
        updates: Finite, at least one.
        weights: One per update.
    """
    ordered = aggregation.in_order(updates, weights)
    gram = gram_of(method, versions, [update for update, _ in ordered])
    factors = rule(gram, np.array([weight for _, weight in ordered])).tolist()
    norms = norms_of(gram).tolist()
    kept = [(pair, factor) for pair, factor in zip(ordered, factors, strict=True) if factor > 0.0]
    numbers = [update.assignment for update, _ in ordered]
    return Weighed(
        updates=tuple(update for (update, _), _ in kept),
        weights=tuple(weight * factor for (_, weight), factor in kept),
        aside={
            number: f"set aside: its norm of {norm:.6g} is among the outermost"
            for number, norm, factor in zip(numbers, norms, factors, strict=True)
            if factor <= 0.0
        },
        defence=Defence(dict(zip(numbers, norms, strict=True)), dict(zip(numbers, factors, strict=True))),
    )


def gram_of(method: Method, versions: Mapping[int, State], updates: Sequence[Update]) -> Gram:
    """Return the inner products of updates over all layers, float64."""
    moves = [
        update_of(method.redistribute, aggregation.version_of(versions, update.base_version), update)
        for update in updates
    ]
    total = np.zeros((len(updates), len(updates)))
    for layer in grams(moves).values():
        total += layer.numpy()
    return total
