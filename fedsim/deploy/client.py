"""What does a client of a real run do? It connects, loads its shard, and trains what it is asked to train."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fedsim.deploy.channel import Channel
from fedsim.deploy.desk import session_keys
from fedsim.deploy.job import Workbench, workbench
from fedsim.deploy.limits import Limits
from fedsim.deploy.messages import (
    CHALLENGE,
    FROM_SERVER,
    GREETING,
    PROTOCOL,
    Assign,
    Failed,
    Goodbye,
    Hello,
    Ready,
    Recalled,
    Received,
    Trained,
    UpdateSent,
    Welcome,
    read_message,
)
from fedsim.deploy.parcels import HEAD_BYTES, pack, size_bytes, unpack
from fedsim.deploy.secret import Token, new_nonce
from fedsim.errors import PeerError, TrainingError
from fedsim.experiment.scenario import Scenario
from fedsim.learn.train import LocalRun
from fedsim.learn.train import Trained as Outcome
from fedsim.lora.factors import zeros
from fedsim.method.bundle import LocalRule, Payload

RETRY_S = 0.2


@dataclass(frozen=True, slots=True)
class Membership:
    """How a client takes part.

    Args:
        device: Its name in the fleet of the scenario.
        token: Shared with the server.
        memory_bytes: What it says it has; None: what the scenario says.
        flops: What it says it does per second; None: what the scenario says.
        pin_flops: Let training last as long as the cost model says at this rate; None: as long as it takes.
        wait_s: How long a server that is not there yet is waited for.
        scenario: The client's own, for models and data that are not embedded.
        limits: What is put up with.
    """

    device: str
    token: Token
    memory_bytes: float | None = None
    flops: float | None = None
    pin_flops: float | None = None
    wait_s: float = 30.0
    scenario: Scenario | None = None
    limits: Limits = field(default_factory=Limits)


@dataclass(slots=True)
class Report:
    """What a client did.

    Args:
        reason: Why it ended.
        trained: Updates sent.
        recalled: Assignments that nobody waited for any more.
        failed: Assignments that could not be trained.
        overruns: Assignments whose training took longer than the duration it was pinned to.
    """

    reason: str = ""
    trained: int = 0
    recalled: int = 0
    failed: int = 0
    overruns: int = 0


@dataclass(slots=True, eq=False)
class _Session:
    channel: Channel
    bench: Workbench
    pin_flops: float | None
    report: Report = field(default_factory=Report)
    recalled: set[int] = field(default_factory=set)
    waiting: "asyncio.Queue[tuple[Assign, bytes]]" = field(default_factory=asyncio.Queue)

    async def run(self) -> Report:
        """Serve until the server says goodbye."""
        working = asyncio.create_task(self._work())
        listening = asyncio.create_task(self._listen())
        try:
            done, _ = await asyncio.wait({working, listening}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (working, listening):
                task.cancel()
            await asyncio.gather(working, listening, return_exceptions=True)
        return self.report

    async def _listen(self) -> None:
        """Hear what comes; a parcel is acknowledged as soon as it is whole."""
        while True:
            header, body = await self.channel.receive()
            message = read_message(FROM_SERVER, header)
            if isinstance(message, Goodbye):
                self.report.reason = message.reason
                return
            if isinstance(message, Recalled):
                self.recalled.add(message.assignment)
                continue
            await self.channel.send(Received(assignment=message.assignment).model_dump())
            self.waiting.put_nowait((message, body))

    async def _work(self) -> None:
        while True:
            message, body = await self.waiting.get()
            await self._serve(message, body)

    async def _serve(self, message: Assign, body: bytes) -> None:
        began_s, number = time.monotonic(), message.assignment
        if number in self.recalled:
            self.report.recalled += 1
            return
        try:
            outcome = await asyncio.to_thread(self._train, message, body)
            ranks, packed = pack({"change": outcome.change}, self.bench.layers, self.bench.wire_dtype)
        except TrainingError as error:
            self.report.failed += 1
            await self.channel.send(Failed(assignment=number, reason=str(error)[:2000]).model_dump())
            return
        await self._pin(message.flops, began_s)
        if number in self.recalled:
            self.report.recalled += 1
            return
        await self.channel.send(Trained(assignment=number).model_dump())
        sent = UpdateSent(assignment=number, ranks=ranks, loss=outcome.loss)
        await self.channel.send(sent.model_dump(), packed)
        self.report.trained += 1

    async def _pin(self, flops: float, began_s: float) -> None:
        """Wait until the modelled duration is over."""
        if self.pin_flops is None:
            return
        left_s = flops / self.pin_flops - (time.monotonic() - began_s)
        self.report.overruns += left_s < 0
        await asyncio.sleep(max(0.0, left_s))

    def _train(self, message: Assign, body: bytes) -> Outcome:
        run = LocalRun(message.steps, message.learning_rate, message.gate, int(message.seed, 16))
        return self.bench.trainer.train(self.bench.client, self._payload(message, body), run)

    def _payload(self, message: Assign, body: bytes) -> Payload:
        parts = unpack(message.ranks, body, self.bench.layers, self.bench.wire_dtype)
        nothing = {layer.name: zeros(layer.d_in, layer.d_out) for layer in self.bench.layers}
        merged = parts.get("merged", {})
        try:
            rule = LocalRule(**message.rule)
        except TypeError as error:
            raise PeerError(f"assignment {message.assignment}: an unknown rule: {error}") from error
        return Payload(
            prefix=parts.get("prefix", nothing),
            tail=parts.get("tail", nothing),
            merged={name: factors for name, factors in merged.items() if factors.rank},
            scaling=message.scaling,
            rule=rule,
        )


async def join(
    host: str, port: int, membership: Membership, tell: Callable[[str], None] = lambda _: None
) -> Report:
    """Take part in a run until the server ends it.

    Args:
        host: Of the server.
        port: Of the server.
        membership: How.
        tell: Told what happens, in one line each.

    Raises:
        PeerError: If the server is not there, is gone, refuses, or does not keep to the protocol.
        InputError: If the client's own files are wrong.
    """
    reader, writer = await _connect(host, port, membership.wait_s)
    opening = membership.token.key("open")
    channel = Channel(reader, writer, membership.limits, opening, opening, membership.limits.hello_bytes)
    try:
        welcome = await _greet(channel, membership)
        tell(f"accepted as client {welcome.client}; loading model and shard")
        bench = await asyncio.to_thread(workbench, welcome, membership.scenario)
        ready = Ready(
            num_examples=bench.num_examples, memory_bytes=membership.memory_bytes, flops=membership.flops
        )
        await channel.send(ready.model_dump())
        channel.max_body = _largest_parcel(bench)
        tell(f"ready with {bench.num_examples} examples")
        return await _Session(channel, bench, membership.pin_flops).run()
    finally:
        await channel.close()


def _largest_parcel(bench: Workbench) -> int:
    """Bytes of full rank at every layer, once to train and once to fold into the base."""
    full = [min(layer.d_in, layer.d_out) for layer in bench.layers]
    return 2 * size_bytes({"all": full}, bench.layers, bench.wire_dtype) + HEAD_BYTES


async def _connect(host: str, port: int, wait_s: float) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    give_up_s = time.monotonic() + wait_s
    while True:
        try:
            return await asyncio.open_connection(host, port)
        except OSError as error:
            if time.monotonic() >= give_up_s:
                raise PeerError(
                    f"{host}:{port}: no server answers ({error.strerror or error}); start fedsim serve"
                ) from error
        await asyncio.sleep(RETRY_S)


async def _greet(channel: Channel, membership: Membership) -> Welcome:
    token, nonce = membership.token, new_nonce()
    try:
        challenge = read_message(CHALLENGE, (await channel.receive(membership.limits.handshake_s))[0])
    except PeerError as error:
        raise PeerError(f"{channel.address}: no fedsim server with this token: {error}") from error
    if challenge.protocol != PROTOCOL:
        raise PeerError(f"the server speaks protocol {challenge.protocol}, this client {PROTOCOL}")
    channel.send_key = token.key("hello", challenge.nonce)
    hello = Hello(protocol=PROTOCOL, device=membership.device, nonce=nonce)
    await channel.send(hello.model_dump())
    down, up = session_keys(token, challenge.nonce, nonce)
    channel.rekey(up, down, membership.limits.header_bytes)
    answer = read_message(GREETING, (await channel.receive(membership.limits.handshake_s))[0])
    if isinstance(answer, Goodbye):
        raise PeerError(f"the server refuses: {answer.reason}")
    return answer
