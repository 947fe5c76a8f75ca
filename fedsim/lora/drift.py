"""How far apart are updates? Distances and angles, computed on factors.

An update here is an `Adapter` whose product is the difference between after and before, for instance from
`fedsim.lora.factors.moved`. This module does not know which of them comes from a client and which from an
oracle.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fedsim.lora.factors import Adapter, adapter_inner, adapter_norm, stack

Gram = Float[Tensor, "updates updates"]


def distance(left: Adapter, right: Adapter) -> float:
    """Frobenius distance over all layers; a missing layer is zero."""
    squared = adapter_norm(left) ** 2 + adapter_norm(right) ** 2 - 2.0 * adapter_inner(left, right)
    return float(max(0.0, squared) ** 0.5)


def cosine(left: Adapter, right: Adapter) -> float:
    """Cosine over all layers together, in [-1, 1]; 0 where either side is zero."""
    norms = adapter_norm(left) * adapter_norm(right)
    return clipped_cosine(adapter_inner(left, right), norms)


def clipped_cosine(inner_product: float, norms: float) -> float:
    """Divide, keep rounding inside [-1, 1], and call the angle with a zero vector a right one."""
    return 0.0 if norms <= 0.0 else min(1.0, max(-1.0, inner_product / norms))


def grams(updates: Sequence[Adapter]) -> dict[str, Gram]:
    """Return all inner products of the updates, per layer, float64.

    One product of the stacked factors serves every pair: ``<B_i A_i, B_j A_j>`` is the sum over block (i,
    j) of ``(B^T B) o (A A^T)``.

    Args:
        updates: Updates; a layer that one of them lacks is zero there.

    Returns:
        Layer name -> symmetric matrix, rows and columns in the order of `updates`.
    """
    names = sorted({name for update in updates for name in update})
    return {name: _layer_gram(name, updates) for name in names}


def _layer_gram(name: str, updates: Sequence[Adapter]) -> Gram:
    """Inner products of one layer."""
    present = [(index, update[name]) for index, update in enumerate(updates) if name in update]
    whole = stack([factors for _, factors in present])
    output, features = whole.lora_b.double(), whole.lora_a.double()
    products = (output.T @ output) * (features @ features.T)
    owner = torch.tensor([index for index, factors in present for _ in range(factors.rank)], dtype=torch.long)
    rows = torch.zeros(len(updates), products.shape[1], dtype=torch.float64).index_add_(0, owner, products)
    return torch.zeros(len(updates), len(updates), dtype=torch.float64).index_add_(1, owner, rows)


def dispersion(layer_grams: Mapping[str, Gram]) -> float | None:
    """Cross-client drift: mean of ``1 - cos`` over pairs, layers weighted by their mean update norm.

    Two zero updates point alike (cosine 1), a zero and a non-zero one do not (cosine 0).

    Args:
        layer_grams: From `grams`.

    Returns:
        The weighted mean, in [0, 2]; None for fewer than two updates or where every update is zero.

    Source:
        Definition of the published FedHera code; docs/design.md, metrics.
    """
    total, weight = 0.0, 0.0
    for gram in layer_grams.values():
        norms = gram.diagonal().clamp_min(0.0).sqrt()
        layer_weight = float(norms.mean()) if len(norms) > 1 else 0.0
        if layer_weight > 0.0:
            total += layer_weight * _layer_dispersion(gram, norms)
            weight += layer_weight
    return total / weight if weight > 0.0 else None


def _layer_dispersion(gram: Gram, norms: Float[Tensor, " updates"]) -> float:
    """Mean of ``1 - cos`` over the pairs of one layer."""
    count = len(norms)
    moving = norms > 0.0
    unit = torch.where(moving, 1.0 / norms.clamp_min(torch.finfo(torch.float64).tiny), 0.0)
    cosines = (unit[:, None] * gram * unit[None, :]).clamp(-1.0, 1.0)
    cosines = torch.where(~moving[:, None] & ~moving[None, :], 1.0, cosines)
    pairs = count * (count - 1) / 2.0
    return float(1.0 - torch.triu(cosines, diagonal=1).sum() / pairs)
