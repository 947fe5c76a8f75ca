"""How do frames cross a connection? One after the other, each bounded in size and in time.

A channel numbers its frames in both directions. Whatever is wrong ends the connection: there is no way back
into step with a side that has lost it.
"""

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedsim.deploy.frames import PRELUDE_BYTES, open_frame, read_prelude, seal
from fedsim.deploy.limits import Limits
from fedsim.errors import PeerError

_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
CLOSING_S = 5.0


@dataclass(slots=True, eq=False)
class Channel:
    """One connection, as frames.

    Args:
        reader: What comes.
        writer: What goes.
        limits: What is put up with.
        send_key: Of the tags of what goes.
        receive_key: Of the tags of what comes.
        max_head: Largest header that may come now.
        max_body: Largest body that may come now.
    """

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    limits: Limits
    send_key: bytes
    receive_key: bytes
    max_head: int
    max_body: int = 0
    _sent: int = 0
    _received: int = 0
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        """Send small frames at once, and notice a side that has silently gone."""
        raw = self.writer.get_extra_info("socket")
        if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _KEEPALIVE.items():
                if hasattr(socket, name):
                    raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    @property
    def address(self) -> str:
        """Of the other side, for messages."""
        found = self.writer.get_extra_info("peername")
        return f"{found[0]}:{found[1]}" if isinstance(found, tuple) else "a local socket"

    def rekey(self, send_key: bytes, receive_key: bytes, max_head: int) -> None:
        """Go on under new keys, counting from zero."""
        self.send_key, self.receive_key, self.max_head = send_key, receive_key, max_head
        self._sent = self._received = 0

    async def send(self, header: Mapping[str, Any], body: bytes = b"") -> None:
        """Send a frame; returns when the system has taken all of it.

        Raises:
            PeerError: If the other side is gone, or takes too long to read.
        """
        async with self._turn:
            frame = seal(self.send_key, self._sent, header, body)
            self._sent += 1
            try:
                self.writer.write(frame)
                async with asyncio.timeout(self.limits.frame_s(len(frame))):
                    await self.writer.drain()
            except TimeoutError as error:
                raise PeerError(f"{self.address} read too slowly a frame of {len(frame)} bytes") from error
            except OSError as error:
                raise PeerError(f"{self.address} has closed the connection") from error

    async def receive(self, within_s: float | None = None) -> tuple[dict[str, Any], bytes]:
        """Return the next frame.

        Args:
            within_s: Until it must have begun; None for any time.

        Raises:
            PeerError: If the other side is gone, too slow, or sends something else than a frame of a legal
                size with the right tag.
        """
        try:
            async with asyncio.timeout(within_s):
                first = await self.reader.readexactly(1)
            async with asyncio.timeout(self.limits.frame_s(PRELUDE_BYTES)):
                data = first + await self.reader.readexactly(PRELUDE_BYTES - 1)
            prelude = read_prelude(data, max_head=self.max_head, max_body=self.max_body)
            async with asyncio.timeout(self.limits.frame_s(prelude.rest_bytes)):
                rest = await self.reader.readexactly(prelude.rest_bytes)
        except TimeoutError as error:
            raise PeerError(f"{self.address} sent nothing, or a frame too slowly") from error
        except (asyncio.IncompleteReadError, OSError) as error:
            raise PeerError(f"{self.address} has closed the connection") from error
        number, self._received = self._received, self._received + 1
        return open_frame(self.receive_key, number, prelude, rest)

    async def close(self) -> None:
        """Close the connection, whatever its state; what has been sent still goes out if it goes soon."""
        self.writer.close()
        try:
            async with asyncio.timeout(CLOSING_S):
                await self.writer.wait_closed()
        except (TimeoutError, OSError):
            self.writer.transport.abort()
