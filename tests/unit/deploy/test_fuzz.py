"""Ten thousand hostile connections to a server with real versions: nothing counts that was not whole."""

import asyncio
import gc
import json
import random
import struct
from pathlib import Path

import pytest
import torch

from fedsim.deploy.channel import Channel
from fedsim.deploy.client import Membership, _greet
from fedsim.deploy.desk import Desk
from fedsim.deploy.frames import PRELUDE_BYTES, seal
from fedsim.deploy.limits import Limits
from fedsim.deploy.messages import FROM_SERVER, Assign, Ready, read_message
from fedsim.deploy.parcels import pack
from fedsim.deploy.runtime import Runtime
from fedsim.errors import PeerError
from fedsim.experiment.build import build
from fedsim.lora.factors import Factors
from fedsim.sim.recording import Scribe
from tests.deploy_world import DEVICES, TOKEN, scenario_of

LIMITS = Limits(handshake_s=1.0, loading_s=1.0, grace_s=1.0, slowest_bps=8e6)
TRIAL_S = 10.0
HOSTILE_HEADERS = (
    [],
    None,
    {"kind": "update"},
    {"kind": "assign", "assignment": 0},
    {"kind": ["update"], "assignment": {}},
    {"kind": "received", "assignment": 1e300},
    {"kind": "trained", "assignment": 2**70},
    {"kind": "failed", "assignment": 0, "reason": "x" * 5000},
    {"__class__": "os.system", "kind": "update", "assignment": 0},
)


class Spy:
    """Versions that are really combined; keeps what was combined."""

    def __init__(self, store):
        self._store = store
        self.counted = []

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def aggregate(self, version, updates, weights):
        self.counted += updates
        return await self._store.aggregate(version, updates, weights)


class Attacker:
    """One connection after the other; every few keep to the protocol."""

    def __init__(self, address, layers, seed):
        self.address = address
        self.layers = layers
        self.random = random.Random(seed)
        self.whole = 0

    async def attack(self):
        kinds = (
            self.honest,
            self.noise,
            self.bad_hello,
            self.mutated,
            self.cut,
            self.hostile_header,
            self.bad_body,
            self.replayed,
            self.out_of_turn,
        )
        weights = (2, 10, 10, 25, 15, 15, 10, 6, 7)
        chosen = self.random.choices(kinds, weights)[0]
        reader, writer = await asyncio.open_connection(*self.address)
        try:
            await chosen(reader, writer)
        except (PeerError, OSError):  # the server hung up on us, or the device is connected still
            pass
        finally:
            writer.close()

    async def noise(self, reader, writer):
        writer.write(self.random.randbytes(self.random.randrange(1, 400)))
        await writer.drain()
        await asyncio.wait_for(reader.read(1000), 5.0)

    async def bad_hello(self, reader, writer):
        data = await reader.readexactly(PRELUDE_BYTES)
        head = struct.unpack(">4sIQ32s", data)[1]
        nonce = json.loads(await reader.readexactly(head))["nonce"]
        hello = {"kind": "hello", "protocol": 1, "device": "d0", "nonce": "0" * 32}
        header = self.random.choice(
            (hello | {"device": 5}, hello | {"nonce": "Z"}, [], {"kind": "hello"}, hello)
        )
        frame = seal(TOKEN.key("hello", nonce), 0, header, b"")
        writer.write(self.change(frame) if header is hello else frame)
        await writer.drain()
        await asyncio.wait_for(reader.read(1000), 5.0)

    async def session(self, reader, writer):
        """Join, and take an assignment."""
        opening = TOKEN.key("open")
        channel = Channel(reader, writer, LIMITS, opening, opening, 4096)
        await _greet(channel, Membership(self.random.choice(DEVICES), TOKEN, limits=LIMITS))
        await channel.send(Ready(num_examples=self.random.randrange(1, 50)).model_dump())
        channel.max_body = 1 << 24
        while True:
            message = read_message(FROM_SERVER, (await channel.receive(2.0))[0])
            if isinstance(message, Assign):
                return channel, message

    def update(self, message):
        """An update such as a client sends: as many columns as it was given to train."""
        ranks = message.ranks["prefix"]
        change = {
            layer.name: Factors(
                lora_a=torch.full((rank, layer.d_in), 1e-3), lora_b=torch.full((layer.d_out, rank), 1e-3)
            )
            for layer, rank in zip(self.layers, ranks, strict=True)
        }
        table, body = pack({"change": change}, self.layers, "bfloat16")
        return {"kind": "update", "assignment": message.assignment, "ranks": table, "loss": 1.0}, body

    async def begun(self, reader, writer):
        channel, message = await self.session(reader, writer)
        for kind in ("received", "trained"):
            await channel.send({"kind": kind, "assignment": message.assignment})
        return channel, message

    async def honest(self, reader, writer):
        channel, message = await self.begun(reader, writer)
        await channel.send(*self.update(message))
        self.whole += 1
        await asyncio.sleep(0.02)

    def change(self, frame):
        """Flip, cut out, repeat or insert bytes."""
        frame, place = bytearray(frame), self.random.randrange(len(frame))
        kind = self.random.randrange(4)
        if kind == 0:
            frame[place] ^= 1 << self.random.randrange(8)
        elif kind == 1:
            del frame[place : place + self.random.randrange(1, 50)]
        elif kind == 2:
            frame[place:place] = self.random.randbytes(self.random.randrange(1, 50))
        else:
            frame[4:16] = self.random.randbytes(12)  # sizes that were never meant
        return bytes(frame)

    async def mutated(self, reader, writer):
        channel, message = await self.begun(reader, writer)
        frame = seal(channel.send_key, channel._sent, *self.update(message))
        writer.write(self.change(frame))
        await writer.drain()
        writer.write_eof()
        await asyncio.wait_for(reader.read(100), 5.0)

    async def cut(self, reader, writer):
        channel, message = await self.begun(reader, writer)
        frame = seal(channel.send_key, channel._sent, *self.update(message))
        writer.write(frame[: self.random.randrange(len(frame))])
        await writer.drain()
        if self.random.random() < 0.5:
            writer.transport.abort()

    async def hostile_header(self, reader, writer):
        channel, _ = await self.session(reader, writer)
        header = self.random.choice(HOSTILE_HEADERS)
        writer.write(seal(channel.send_key, channel._sent, header, b""))
        await writer.drain()
        await asyncio.wait_for(reader.read(100), 5.0)

    async def bad_body(self, reader, writer):
        channel, message = await self.begun(reader, writer)
        header, body = self.update(message)
        kind = self.random.randrange(4)
        if kind == 0:
            body = self.change(body)[: len(body)]
            body = body[:-1]
        elif kind == 1:
            header["ranks"]["change"] = [rank + 1 for rank in header["ranks"]["change"]]
        elif kind == 2:
            header["assignment"] += 1_000_000
        else:
            body = struct.pack("<Q", 2**63) + body[8:]
        await channel.send(header, body)
        await asyncio.wait_for(reader.read(100), 5.0)

    async def replayed(self, reader, writer):
        channel, message = await self.session(reader, writer)
        frame = seal(
            channel.send_key, channel._sent, {"kind": "received", "assignment": message.assignment}, b""
        )
        writer.write(frame + frame)
        await writer.drain()
        await asyncio.wait_for(reader.read(100), 5.0)

    async def stalls(self, address):
        """Send half of an update, then nothing, from a client that has shown that it knows the token."""
        reader, writer = await asyncio.open_connection(*address)
        channel, message = await self.begun(reader, writer)
        frame = seal(channel.send_key, channel._sent, *self.update(message))
        began_s = asyncio.get_running_loop().time()
        writer.write(frame[: len(frame) // 2])
        assert await reader.read(100) == b""
        assert asyncio.get_running_loop().time() - began_s < LIMITS.frame_s(len(frame)) + 2.0
        writer.close()

    async def out_of_turn(self, reader, writer):
        channel, message = await self.session(reader, writer)
        await channel.send(*self.update(message))
        await asyncio.wait_for(reader.read(100), 5.0)


def resident_bytes():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def under_attack(folder, trials):
    """Attack a server that aggregates every update at once; returns what came of it."""
    scenario = scenario_of(
        folder,
        server__pacing="async",
        server__cohort="null",
        server__concurrency="4",
        stop__rounds="1000000",
        evaluation__every="1000000",
        method__options="{rank_cap: 2, initial_rank: 2}",
    )
    experiment = await asyncio.to_thread(build, scenario)
    spy = Spy(experiment.engine.store)
    runtime = Runtime(experiment, spy, Scribe([]), num_awaited=1)
    desk = Desk(runtime, TOKEN, LIMITS)
    address = await desk.open("127.0.0.1", 0)
    running = asyncio.create_task(runtime.run())
    attackers = [Attacker(address, experiment.shape.layers, seed) for seed in range(4)]
    grown = 0
    for number in range(trials):
        async with asyncio.timeout(TRIAL_S):
            await attackers[number % 4].attack()
        if number == trials // 5:
            grown = -resident_bytes()
        assert not running.done(), running.exception()
    grown += resident_bytes()
    await slow_senders(address)
    await attackers[0].stalls(address)
    whole = sum(attacker.whole for attacker in attackers)
    async with asyncio.timeout(TRIAL_S):
        await asyncio.gather(*desk._tasks)
    assert not running.done()
    running.cancel()
    await desk.close("the test is over")
    await experiment.close()
    return whole, spy.counted, grown, desk.refused


async def slow_senders(address):
    """Say one byte, then nothing: the server hangs up when its patience is over, not later."""
    clock = asyncio.get_running_loop().time
    for first in (b"", b"f", b"fsm1\0\0"):
        reader, writer = await asyncio.open_connection(*address)
        began_s = clock()
        writer.write(first)
        while await reader.read(1000):
            pass
        assert clock() - began_s < LIMITS.handshake_s + LIMITS.grace_s + 2.0
        writer.close()


def check(folder, trials, growth_bytes):
    whole, counted, grown, refused = asyncio.run(under_attack(folder, trials))
    assert whole > 0
    assert len(counted) <= whole
    assert len(counted) >= 0.8 * whole
    assert len({update.assignment for update in counted}) == len(counted)
    for update in counted:
        for factors in update.change.values():
            assert torch.allclose(factors.lora_a, torch.tensor(1e-3), rtol=1e-2)
            assert torch.allclose(factors.lora_b, torch.tensor(1e-3), rtol=1e-2)
    assert refused > 0.1 * trials
    assert grown < growth_bytes, f"grew by {grown} bytes"


def test_a_few_hundred_hostile_connections(tmp_path):
    check(tmp_path, 250, 64e6)


@pytest.mark.slow
def test_ten_thousand_hostile_connections(tmp_path):
    check(tmp_path, 10_000, 64e6)
