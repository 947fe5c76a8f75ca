"""How many bytes does one adapter column take on the wire?

A column is the pair ``P[:, k]`` (``d_out`` numbers) and ``Q[k, :]`` (``d_in`` numbers). Integer formats carry
one float32 scale for each of the two vectors. `fedsim.lora.codec` encodes to exactly these sizes, and the
allocator pays exactly these prices.
"""

from typing import Literal, get_args

WireDtype = Literal["float32", "float16", "bfloat16", "int8", "int4"]
WIRE_DTYPES: tuple[WireDtype, ...] = get_args(WireDtype)

SCALE_BYTES = 4
_BITS: dict[WireDtype, int] = {"float32": 32, "float16": 16, "bfloat16": 16, "int8": 8, "int4": 4}


def vector_bytes(size: int, dtype: WireDtype) -> int:
    """Bytes of one encoded vector of `size` numbers, its scale included where the format has one."""
    payload = (size * _BITS[dtype] + 7) // 8
    return payload + (SCALE_BYTES if dtype.startswith("int") else 0)


def column_bytes(d_in: int, d_out: int, dtype: WireDtype) -> int:
    """Bytes of one adapter column: ``P[:, k]`` and ``Q[k, :]``."""
    return vector_bytes(d_in, dtype) + vector_bytes(d_out, dtype)
