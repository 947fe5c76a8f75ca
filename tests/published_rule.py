"""A test double: aggregation as the published FedHera code does it, to show what fedsim's rule avoids.

Every received column travels back, the tail scaled by the client's gate, and whole adapters are averaged.
"""

from collections.abc import Sequence

import torch

from fedsim.lora.basis import compact_svd
from fedsim.lora.factors import Factors, stack
from fedsim.method.bundle import BasisState, Payload


def upload_of(payload: Payload, gate: float) -> dict[str, Factors]:
    """What a client returns that has not moved: its prefix, and its tail scaled by the gate."""
    root = gate**0.5
    return {
        name: stack([prefix, Factors(payload.tail[name].lora_a * root, payload.tail[name].lora_b * root)])
        for name, prefix in payload.prefix.items()
    }


def published_original(
    state: BasisState, uploads: Sequence[dict[str, Factors]], weights: Sequence[float], max_rank: int
) -> BasisState:
    """Average the uploaded adapters (mode "original")."""
    basis = {}
    for layer in state.shapes:
        parts = [
            Factors(upload[layer.name].lora_a * weight**0.5, upload[layer.name].lora_b * weight**0.5)
            for upload, weight in zip(uploads, weights, strict=True)
        ]
        basis[layer.name] = compact_svd(stack(parts), max_rank)
    return BasisState(state.version + 1, basis, state.shapes, state.seed)


def relative_move(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> float:
    """Frobenius distance over all layers, relative to where it began."""
    moved = sum(float((after[name] - before[name]).square().sum()) for name in before)
    return (moved / sum(float(value.square().sum()) for value in before.values())) ** 0.5
