"""How do factors travel? Encoding to bytes and back, at exactly the sizes of `fedsim.wire`.

Layout of an encoded pair of rank r: r columns after one another; each is the vector ``lora_b[:, k]`` and
then the vector ``lora_a[k, :]``. A vector is its numbers, little-endian (``int4``: two to a byte, low
nibble first, the last nibble zero where the size is odd), after one little-endian float32 scale in the
integer formats. A progressive delivery can be cut after any column. Zero encodes to zero in every format,
so an unchanged prefix stays unchanged.
"""

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from fedsim.errors import TrainingError
from fedsim.lora.factors import Adapter, Factors
from fedsim.wire import WireDtype, column_bytes, vector_bytes

_LEVELS = {"int8": 127, "int4": 7}
_FLOATS: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}

Bytes2D = np.ndarray


def encode(factors: Factors, dtype: WireDtype) -> bytes:
    """Encode a pair of factors, column after column.

    Integer formats take one scale per vector, its largest magnitude over 127 or 7, and round to nearest even.

    Args:
        factors: Finite factors.
        dtype: Number format.

    Returns:
        Exactly ``rank * column_bytes(d_in, d_out, dtype)`` bytes.

    Raises:
        TrainingError: If a number is not finite, or too large for the format.
    """
    parts = [
        _encode_rows(factors.lora_b.T.contiguous().float(), dtype),
        _encode_rows(factors.lora_a.contiguous().float(), dtype),
    ]
    return bytes(np.concatenate(parts, axis=1).tobytes())


def decode(payload: bytes, d_in: int, d_out: int, dtype: WireDtype) -> Factors:
    """Decode what `encode` wrote; the rank follows from the length.

    Raises:
        TrainingError: If the length is not a whole number of columns.
    """
    size = column_bytes(d_in, d_out, dtype)
    if len(payload) % size:
        raise TrainingError(
            f"encoded factors ({d_out} x r, r x {d_in}, {dtype}): expected a multiple of {size} bytes, "
            f"got {len(payload)}; the transfer was cut inside a column"
        )
    table = np.frombuffer(payload, dtype=np.uint8).reshape(-1, size)
    split = vector_bytes(d_out, dtype)
    return Factors(
        lora_a=_decode_rows(table[:, split:], d_in, dtype),
        lora_b=_decode_rows(table[:, :split], d_out, dtype).T.contiguous(),
    )


def roundtrip(factors: Factors, dtype: WireDtype) -> Factors:
    """Return the factors as the other side of the wire sees them, float32."""
    return Factors(
        lora_a=_round_rows(factors.lora_a.contiguous().float(), dtype),
        lora_b=_round_rows(factors.lora_b.T.contiguous().float(), dtype).T.contiguous(),
    )


def roundtrip_adapter(adapter: Adapter, dtype: WireDtype) -> dict[str, Factors]:
    """Apply `roundtrip` to every layer."""
    return {name: roundtrip(factors, dtype) for name, factors in adapter.items()}


def adapter_bytes(adapter: Adapter, dtype: WireDtype) -> int:
    """Exact size of an encoded adapter."""
    return sum(
        factors.rank * column_bytes(factors.d_in, factors.d_out, dtype) for factors in adapter.values()
    )


def _round_rows(rows: Float32[Tensor, "count size"], dtype: WireDtype) -> Float32[Tensor, "count size"]:
    """Round as `_encode_rows` and `_decode_rows` do, without making bytes."""
    if dtype in _FLOATS:
        return _cast(rows, dtype).float()
    levels, scale = _quantise(rows, dtype)
    return levels * scale[:, None]


def _encode_rows(rows: Float32[Tensor, "count size"], dtype: WireDtype) -> Bytes2D:
    """Encode each row to its own row of bytes."""
    if dtype in _FLOATS:
        return _as_bytes(_cast(rows, dtype), vector_bytes(rows.shape[1], dtype))
    levels, scale = _quantise(rows, dtype)
    head = _as_bytes(scale[:, None], 4)
    integers = levels.to(torch.int8).numpy()
    body = integers.view(np.uint8) if dtype == "int8" else _pack_nibbles(integers)
    return np.concatenate([head, body], axis=1)


def _decode_rows(table: Bytes2D, size: int, dtype: WireDtype) -> Float32[Tensor, "count size"]:
    """Decode each row of bytes."""
    count = table.shape[0]
    if count == 0:
        return torch.zeros(0, size)
    if dtype in _FLOATS:
        flat = torch.from_numpy(np.ascontiguousarray(table).reshape(-1).copy())
        return flat.view(_FLOATS[dtype]).reshape(count, size).float()
    scale = np.ascontiguousarray(table[:, :4]).view("<f4").astype(np.float32)
    body = np.ascontiguousarray(table[:, 4:])
    levels = body.view(np.int8) if dtype == "int8" else _unpack_nibbles(body, size)
    return torch.from_numpy(levels.astype(np.float32) * scale)


def _cast(rows: Float32[Tensor, "count size"], dtype: WireDtype) -> Tensor:
    """Convert to a floating-point format, refusing what it cannot hold."""
    cast = rows.to(_FLOATS[dtype])
    if not bool(torch.isfinite(cast).all()):
        raise TrainingError(
            f"encoding to {dtype}: expected finite numbers within its range, got largest magnitude "
            f"{float(rows.abs().max())}; lower the learning rate or choose a wider wire_dtype"
        )
    return cast


def _quantise(
    rows: Float32[Tensor, "count size"], dtype: WireDtype
) -> tuple[Float32[Tensor, "count size"], Float32[Tensor, " count"]]:
    """Return integer levels and the scale of each row; a zero row has scale 0 and levels 0."""
    if not bool(torch.isfinite(rows).all()):
        raise TrainingError(f"encoding to {dtype}: expected finite numbers, got nan or infinity")
    top = _LEVELS[dtype]
    largest = rows.abs().amax(dim=1) if rows.shape[1] else torch.zeros(rows.shape[0])
    scale = largest / top
    # A row so small that its scale underflows is zero on the wire.
    divisor = torch.where(scale > 0.0, scale, torch.ones_like(scale))
    levels = torch.where(scale[:, None] > 0.0, rows / divisor[:, None], torch.zeros_like(rows))
    return levels.round().clamp(-top, top), scale


def _as_bytes(rows: Tensor, width: int) -> Bytes2D:
    """View the numbers of each row as bytes."""
    if rows.shape[0] == 0:
        return np.zeros((0, width), dtype=np.uint8)
    flat = rows.contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().reshape(rows.shape[0], width)


def _pack_nibbles(levels: np.ndarray) -> Bytes2D:
    """Pack signed 4-bit numbers two to a byte, low nibble first."""
    nibbles = levels.view(np.uint8) & 0x0F
    if nibbles.shape[1] % 2:
        nibbles = np.pad(nibbles, ((0, 0), (0, 1)))
    packed: np.ndarray = nibbles[:, 0::2] | (nibbles[:, 1::2] << 4)
    return packed


def _unpack_nibbles(body: Bytes2D, size: int) -> np.ndarray:
    """Undo `_pack_nibbles`."""
    nibbles = np.empty((body.shape[0], 2 * body.shape[1]), dtype=np.int8)
    nibbles[:, 0::2] = (body & 0x0F).astype(np.int8)
    nibbles[:, 1::2] = (body >> 4).astype(np.int8)
    signed = np.where(nibbles > 7, nibbles - 16, nibbles)
    return signed[:, :size].astype(np.int8)
