"""How do columns travel in a body? One safetensors tensor of codec bytes per part, layer after layer.

The codec's bytes are exactly those that the cost model charges for; what a frame adds is its prelude, its
header and the head of the safetensors file, some hundred bytes.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from fedsim.errors import PeerError, TrainingError
from fedsim.lora.codec import decode, encode
from fedsim.lora.factors import Adapter, Factors
from fedsim.wire import WireDtype, column_bytes
from fedsim.world.shape import LayerShape

HEAD_BYTES = 1024
"""More than the head of such a safetensors file can take."""

RankTable = dict[str, list[int]]


def pack(
    parts: Mapping[str, Adapter], layers: Sequence[LayerShape], dtype: WireDtype
) -> tuple[RankTable, bytes]:
    """Encode parts of a payload or of a change.

    Args:
        parts: Name -> adapter; layers may be missing.
        layers: In the order of the plans.
        dtype: Number format.

    Returns:
        Columns per part and layer, and the body.

    Raises:
        TrainingError: If a number does not fit the format.
    """
    ranks, tensors = {}, {}
    for name, adapter in parts.items():
        present = [adapter.get(layer.name) for layer in layers]
        if not any(factors is not None and factors.rank for factors in present):
            continue
        ranks[name] = [0 if factors is None else factors.rank for factors in present]
        encoded = b"".join(encode(factors, dtype) for factors in present if factors is not None)
        tensors[name] = torch.from_numpy(np.frombuffer(bytearray(encoded), dtype=np.uint8))
    return ranks, bytes(save(tensors))


def unpack(
    ranks: RankTable, body: bytes, layers: Sequence[LayerShape], dtype: WireDtype
) -> dict[str, dict[str, Factors]]:
    """Undo `pack`; every part has every layer, with no columns where there are none.

    Raises:
        PeerError: If header and body do not fit together.
    """
    try:
        tensors = load(body)
    except (SafetensorError, ValueError, OverflowError) as error:
        raise PeerError(f"expected a body in the safetensors format: {error}") from error
    if set(tensors) != set(ranks):
        raise PeerError(f"expected the parts {sorted(ranks)}, got {sorted(tensors)}")
    return {name: _unpack_part(name, ranks[name], tensors[name], layers, dtype) for name in ranks}


def _unpack_part(
    name: str, ranks: Sequence[int], tensor: torch.Tensor, layers: Sequence[LayerShape], dtype: WireDtype
) -> dict[str, Factors]:
    if len(ranks) != len(layers):
        raise PeerError(f"{name}: expected ranks of {len(layers)} layers, got {len(ranks)}")
    size = sum(size_of(layer, rank, dtype) for layer, rank in zip(layers, ranks, strict=True))
    if tensor.dtype != torch.uint8 or tensor.shape != (size,):
        raise PeerError(f"{name}: expected {size} bytes, got {tuple(tensor.shape)} of {tensor.dtype}")
    data, adapter, start = tensor.numpy().tobytes(), {}, 0
    for layer, rank in zip(layers, ranks, strict=True):
        end = start + size_of(layer, rank, dtype)
        try:
            adapter[layer.name] = decode(data[start:end], layer.d_in, layer.d_out, dtype)
        except TrainingError as error:
            raise PeerError(f"{name}: {error}") from error
        start = end
    return adapter


def size_of(layer: LayerShape, rank: int, dtype: WireDtype) -> int:
    """Bytes of so many columns of a layer."""
    return rank * column_bytes(layer.d_in, layer.d_out, dtype)


def size_bytes(ranks: Mapping[str, Sequence[int]], layers: Sequence[LayerShape], dtype: WireDtype) -> int:
    """Bytes of the columns of all parts."""
    return sum(
        size_of(layer, rank, dtype)
        for part in ranks.values()
        for layer, rank in zip(layers, part, strict=True)
    )
