"""The Ray executor against a Ray of this machine: the same bits, over deaths of actors too."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from fedsim.errors import MissingExtraError, ModelError, ScenarioError, TrainingError
from fedsim.learn.executors.inline import InlineExecutor
from fedsim.learn.executors.ray_actor import ActorSetup, Machine
from fedsim.learn.executors.ray_pool import Cluster, RayExecutor, _check_same
from fedsim.learn.executors.worker import WorkerSetup
from fedsim.learn.train import TrainingSettings
from fedsim.learn.trainer import ClientTrainer
from fedsim.learn.versions import VersionStore
from fedsim.method.catalogue import build_method
from fedsim.method.messages import TrainingFailure
from fedsim.sim.executor import Executor
from tests.unit.learn.test_executors import assert_same, requests
from tests.unit.learn.toy import random_adapter, request

SETTINGS = TrainingSettings(batch_size=2, max_length=64, wire_dtype="int8")
METHOD, OPTIONS, SEED = "flexlora", {}, 3


@pytest.fixture(scope="module")
def ray():
    module = pytest.importorskip("ray", reason="Ray is not installed: pip install 'fedsim-lora[ray]'")
    module.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield module
    module.shutdown()


@pytest.fixture
def store(slotted):
    adapter = random_adapter(slotted[2], [4, 3], scale=0.1)
    return VersionStore(build_method(METHOD, OPTIONS), slotted[2].layers, SEED, adapter)


def setup(slotted, task, source="embedded"):
    layers = slotted[2].layers
    worker = WorkerSetup(source, "cpu", tuple(layer.name for layer in layers), task, SETTINGS)
    return ActorSetup(worker, METHOD, OPTIONS, layers, SEED)


async def until_busy(pid):
    """Wait until a process has computed for a while: an actor that trains."""
    ticks, began, stat = os.sysconf("SC_CLK_TCK"), None, Path(f"/proc/{pid}/stat")
    for _ in range(600):
        spent = int((await asyncio.to_thread(stat.read_text)).rpartition(")")[2].split()[11]) / ticks
        began = spent if began is None else began
        if spent - began > 0.5:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the actor never began to train")


@pytest.mark.slow
async def test_actors_equal_inline_bit_for_bit_and_survive_a_death_in_mid_training(ray, slotted, task, store):
    inline = InlineExecutor(store, ClientTrainer(slotted[0], slotted[1], task, SETTINGS), task, SETTINGS)
    asked = requests(slotted[2])
    expected = await inline.train(asked)
    executor = RayExecutor(store, setup(slotted, task), Cluster(), 2)
    try:
        assert isinstance(executor, Executor)
        assert_same(await executor.train(asked), expected)
        wild = request(1, 1, slotted[2], learning_rate=float("inf"))
        assert isinstance((await executor.train([wild]))[0], TrainingFailure)

        long = [request(7, 0, slotted[2], steps=200)]
        whole = await inline.train(long)
        old = executor.pids()
        training = asyncio.create_task(executor.train(long * 2))
        await asyncio.gather(*(until_busy(pid) for pid in old))
        os.kill(old[0], signal.SIGKILL)
        assert_same(await training, whole * 2)
        assert executor.pids()[0] != old[0]
        assert executor.pids()[1] == old[1]

        endless = asyncio.create_task(executor.train([request(5, 0, slotted[2], steps=100_000)]))
        await asyncio.sleep(0.3)
        began = time.monotonic()
        endless.cancel()
        with pytest.raises(asyncio.CancelledError):
            await endless
        assert time.monotonic() - began < 5.0
    finally:
        await executor.close()
    assert ray.is_initialized()  # it was not started for the executor
    with pytest.raises(TrainingError, match="closed"):
        await executor.train([])


@pytest.mark.slow
async def test_an_actor_that_always_dies_fails_its_request_alone(ray, slotted, task, store):
    executor = RayExecutor(store, setup(slotted, task), Cluster(), 1)
    try:
        training = asyncio.create_task(executor.train([request(7, 0, slotted[2], steps=100_000)]))
        killed = set()
        while not training.done():
            actor = executor._actors[0]
            if actor._pid and actor._pid not in killed and len(killed) < 2:
                await until_busy(actor._pid)
                os.kill(actor._pid, signal.SIGKILL)
                killed.add(actor._pid)
            await asyncio.sleep(0.05)
        (answer,) = await training
        assert isinstance(answer, TrainingFailure)
        assert "died 2 times" in answer.reason
        asked = [request(3, 1, slotted[2])]
        assert not isinstance((await executor.train(asked))[0], TrainingFailure)  # the next one is served
    finally:
        await executor.close()


@pytest.mark.slow
async def test_each_version_reaches_each_actor_once(ray, slotted, task, store):
    put, sent = [], []
    executor = RayExecutor(store, setup(slotted, task), Cluster(), 1)
    try:
        executor.pids()
        (actor,) = executor._actors
        real_put, hold = ray.put, actor._handle.hold
        ray.put = lambda value: put.append(len(value)) or real_put(value)
        actor._handle.hold = type(
            "Noting", (), {"remote": lambda _, *told: sent.append(told[0]) or hold.remote(*told)}
        )()
        for _ in range(3):
            await executor.train(requests(slotted[2]))
        store.put(1, store.state(0))
        await executor.train([request(3, 1, slotted[2], version=1), request(4, 2, slotted[2])])
        store.release(0)
        await executor.train([request(3, 1, slotted[2], version=1)])
    finally:
        ray.put = real_put
        await executor.close()
    assert sent == [0, 1]
    assert len(put) == 2
    assert set(executor._versions) == {1}


@pytest.mark.slow
async def test_what_cannot_start_says_why(ray, slotted, task, store, tmp_path):
    with pytest.raises(ScenarioError, match="3 actors with 1 CPU each need 3, Ray has 2"):
        RayExecutor(store, setup(slotted, task), Cluster(), 3)
    broken = RayExecutor(store, setup(slotted, task, str(tmp_path)), Cluster(), 1)
    try:
        with pytest.raises(ModelError, match=r"died while it loaded .*config\.json"):
            await broken.train([request(1, 1, slotted[2])])
    finally:
        await broken.close()


def test_without_ray_the_way_out_is_named(monkeypatch, slotted, task, store):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr("fedsim.learn.executors.ray_pool.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fedsim-lora\[ray\]'"):
        RayExecutor(store, setup(slotted, task), Cluster(), 1)


def test_a_machine_that_gives_other_bits_is_refused():
    _check_same(Machine.here("cpu"))
    from fedsim.errors import InputError

    with pytest.raises(InputError, match="the record would depend on who trains whom"):
        _check_same(Machine("cpu", Machine.here("cpu").torch, "OTHER"))
