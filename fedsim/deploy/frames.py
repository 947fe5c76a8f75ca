"""What does one frame look like on the wire? Bytes in, values out, nothing read or sent.

A frame is a prelude of fixed size, a header in JSON and a body::

    magic "fsm1" | header bytes, u32 | body bytes, u64 | tag, 32 bytes | header | body

in network order. The sizes are checked before anything else is read, the tag before anything is parsed.
"""

import hmac
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedsim.deploy.secret import tag
from fedsim.errors import PeerError

MAGIC = b"fsm1"
_PRELUDE = struct.Struct(">4sIQ32s")
PRELUDE_BYTES = _PRELUDE.size


@dataclass(frozen=True, slots=True)
class Prelude:
    """What comes first.

    Args:
        head_bytes: Of the header.
        body_bytes: Of the body.
        tag: Of both.
    """

    head_bytes: int
    body_bytes: int
    tag: bytes

    @property
    def rest_bytes(self) -> int:
        """What follows the prelude."""
        return self.head_bytes + self.body_bytes


def seal(key: bytes, number: int, header: Mapping[str, Any], body: bytes) -> bytes:
    """Return the bytes of a frame."""
    head = json.dumps(header, allow_nan=False, separators=(",", ":")).encode()
    prelude = _PRELUDE.pack(MAGIC, len(head), len(body), tag(key, number, head, body))
    return prelude + head + body


def read_prelude(data: bytes, *, max_head: int, max_body: int) -> Prelude:
    """Read a prelude.

    Raises:
        PeerError: If this is no frame, or a larger one than may come now.
    """
    magic, head_bytes, body_bytes, seal_ = _PRELUDE.unpack(data)
    if magic != MAGIC:
        raise PeerError(f"expected a frame that begins with {MAGIC!r}, got {magic!r}")
    if head_bytes > max_head:
        raise PeerError(f"expected a header of at most {max_head} bytes, got {head_bytes}")
    if body_bytes > max_body:
        raise PeerError(f"expected a body of at most {max_body} bytes, got {body_bytes}")
    return Prelude(head_bytes, body_bytes, seal_)


def open_frame(key: bytes, number: int, prelude: Prelude, rest: bytes) -> tuple[dict[str, Any], bytes]:
    """Return header and body of a frame whose bytes are all there.

    Raises:
        PeerError: If bytes are missing, the tag is not the right one, or the header is no JSON object.
    """
    if len(rest) != prelude.rest_bytes:
        raise PeerError(f"expected {prelude.rest_bytes} bytes after the prelude, got {len(rest)}")
    head, body = rest[: prelude.head_bytes], rest[prelude.head_bytes :]
    if not hmac.compare_digest(prelude.tag, tag(key, number, head, body)):
        raise PeerError("the tag of a frame is wrong: another token, or bytes that changed on the way")
    try:
        header = json.loads(head)
    except (ValueError, RecursionError) as error:
        raise PeerError("expected a header in JSON") from error
    if not isinstance(header, dict):
        raise PeerError(f"expected a header that is an object, got a {type(header).__name__}")
    return header, body
