"""Who is connected, and what do they say? Sockets on one side, checked messages on the other.

One task reads from each client and one writes to it, so a slow client holds up nobody else. What a client
does wrong ends its connection and nothing more.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from fedsim.deploy.channel import Channel
from fedsim.deploy.limits import Limits
from fedsim.deploy.messages import (
    FROM_CLIENT,
    HELLO,
    PROTOCOL,
    READY,
    Challenge,
    Failed,
    Goodbye,
    Hello,
    Ready,
    Received,
    Trained,
    UpdateSent,
    Welcome,
    read_message,
)
from fedsim.deploy.secret import Token, new_nonce
from fedsim.errors import InputError, PeerError

Said = Received | Trained | UpdateSent | Failed
Outgoing = tuple[Mapping[str, Any], bytes, Callable[[], None]]
FAREWELL_S = 10.0


@dataclass(slots=True, eq=False)
class Peer:
    """A client that is connected and ready.

    Args:
        client: Its index.
        channel: The connection.
        ready: What it said of itself.
        outbox: What it is to be told, in order.
    """

    client: int
    channel: Channel
    ready: Ready
    outbox: "asyncio.Queue[Outgoing | None]" = field(default_factory=asyncio.Queue)

    def tell(
        self, message: Mapping[str, Any], body: bytes = b"", begins: Callable[[], None] = lambda: None
    ) -> None:
        """Send this as soon as what was said before has gone; `begins` is told when it starts to go."""
        self.outbox.put_nowait((message, body, begins))


class House(Protocol):
    """Who decides. No call may wait: time passes only between calls."""

    def admit(self, device: str) -> Welcome:
        """Return what a device is told that has shown that it knows the token.

        Raises:
            InputError: If it is not wanted.
        """
        ...

    def joined(self, peer: Peer) -> None:
        """A client is ready."""
        ...

    def left(self, peer: Peer, reason: str) -> None:
        """A client is gone."""
        ...

    def heard(self, peer: Peer, message: Said, body: bytes) -> None:
        """A client said something.

        Raises:
            PeerError: If it makes no sense; the connection ends.
        """
        ...


@dataclass(slots=True, eq=False)
class Desk:
    """Takes connections and keeps them.

    Args:
        house: Who decides.
        token: What clients must know.
        limits: What is put up with.
    """

    house: House
    token: Token
    limits: Limits
    refused: int = 0
    _peers: "set[Peer]" = field(default_factory=set)
    _server: asyncio.Server | None = None
    _tasks: "set[asyncio.Task[None]]" = field(default_factory=set)
    _closing: bool = False

    async def open(self, host: str, port: int) -> tuple[str, int]:
        """Listen; returns the address, in which port 0 has become the one that was free.

        Raises:
            InputError: If nobody can listen there.
        """
        try:
            self._server = await asyncio.start_server(self._take, host, port)
        except OSError as error:
            raise InputError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
        name = self._server.sockets[0].getsockname()
        return str(name[0]), int(name[1])

    async def close(self, reason: str) -> None:
        """Say goodbye to everybody, and stop listening."""
        self._closing = True
        if self._server is not None:
            self._server.close()
        for peer in list(self._peers):
            peer.tell(Goodbye(reason=reason).model_dump())
            peer.outbox.put_nowait(None)
        if self._tasks:
            _, pending = await asyncio.wait(self._tasks, timeout=FAREWELL_S)
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= self.limits.connections or self._closing:
            self.refused += 1
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opening = self.token.key("open")
        channel = Channel(reader, writer, self.limits, opening, opening, self.limits.hello_bytes)
        try:
            async with asyncio.timeout(self.limits.handshake_s):
                hello = await self._greet(channel)
            peer = await self._welcome(channel, hello)
            if peer is not None:
                await self._converse(peer)
        except (PeerError, TimeoutError):
            self.refused += 1
        finally:
            await channel.close()

    async def _greet(self, channel: Channel) -> Hello:
        """Find out who is there; their first frame is parsed only if its tag is right."""
        nonce = new_nonce()
        await channel.send(Challenge(protocol=PROTOCOL, nonce=nonce).model_dump())
        channel.receive_key = self.token.key("hello", nonce)
        hello = read_message(HELLO, (await channel.receive())[0])
        down, up = session_keys(self.token, nonce, hello.nonce)
        channel.rekey(down, up, self.limits.header_bytes)
        return hello

    async def _welcome(self, channel: Channel, hello: Hello) -> Peer | None:
        try:
            welcome = self._admit(hello)
        except InputError as error:
            await channel.send(Goodbye(reason=str(error), is_error=True).model_dump())
            return None
        await channel.send(welcome.model_dump())
        ready = read_message(READY, (await channel.receive(self.limits.loading_s))[0])
        return Peer(welcome.client, channel, ready)

    def _admit(self, hello: Hello) -> Welcome:
        if hello.protocol != PROTOCOL:
            raise InputError(f"the server speaks protocol {PROTOCOL}, the client {hello.protocol}")
        return self.house.admit(hello.device)

    async def _converse(self, peer: Peer) -> None:
        self.house.joined(peer)
        self._peers.add(peer)
        reason = "the connection was closed"
        writing = asyncio.create_task(self._write(peer))
        try:
            while True:
                header, body = await peer.channel.receive()
                self.house.heard(peer, read_message(FROM_CLIENT, header), body)
        except PeerError as error:
            reason = str(error)
        finally:
            self._peers.discard(peer)
            writing.cancel()
            with suppress(asyncio.CancelledError, PeerError):
                await writing
            self.house.left(peer, reason)

    async def _write(self, peer: Peer) -> None:
        """Send what is in the outbox; a client that does not read loses its connection."""
        try:
            while (outgoing := await peer.outbox.get()) is not None:
                message, body, begins = outgoing
                begins()
                await peer.channel.send(message, body)
        finally:
            peer.channel.writer.close()


def session_keys(token: Token, server_nonce: str, client_nonce: str) -> tuple[bytes, bytes]:
    """Return the keys from server to client and from client to server."""
    return token.key("down", server_nonce, client_nonce), token.key("up", server_nonce, client_nonce)
