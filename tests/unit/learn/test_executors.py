"""Executors: the same bits wherever a client is trained."""

import asyncio
import os
import signal
import sys
import time
from multiprocessing.spawn import get_preparation_data

import pytest

from fedsim.errors import ModelError, TrainingError
from fedsim.learn.executors import workers
from fedsim.learn.executors.frames import pack_request, pack_trained, unpack_answer, unpack_request
from fedsim.learn.executors.inline import InlineExecutor
from fedsim.learn.executors.worker import WorkerSetup
from fedsim.learn.executors.workers import WorkerExecutor, placed
from fedsim.learn.freeze import freeze
from fedsim.learn.train import LocalRun, Trained, TrainingSettings
from fedsim.learn.trainer import ClientTrainer
from fedsim.learn.versions import VersionStore
from fedsim.method.bundle import Payload
from fedsim.method.messages import TrainingFailure
from fedsim.sim.executor import Executor
from tests.unit.learn.toy import METHOD, random_adapter, request, same

SETTINGS = TrainingSettings(batch_size=2, max_length=64, wire_dtype="int8")


@pytest.fixture(scope="module")
def store(slotted):
    return VersionStore(METHOD, slotted[2].layers, 0, random_adapter(slotted[2], [4, 3], scale=0.1))


@pytest.fixture
def inline(slotted, task, store):
    return InlineExecutor(store, ClientTrainer(slotted[0], slotted[1], task, SETTINGS), task, SETTINGS)


def setup(slotted, task, source="embedded"):
    return WorkerSetup(source, "cpu", tuple(layer.name for layer in slotted[2].layers), task, SETTINGS)


def requests(shape):
    return [request(number, client, shape) for number, client in ((3, 5), (4, 0), (9, 2))]


def assert_same(left, right):
    for a, b in zip(left, right, strict=True):
        assert (a.assignment, a.client, a.plan, a.num_examples) == (
            b.assignment,
            b.client,
            b.plan,
            b.num_examples,
        )
        assert a.loss == b.loss
        assert same(a.change, b.change)
        assert list(a.change) == list(b.change), "the journal keeps the order too"


def test_frames_carry_every_bit(slotted):
    payload = Payload(random_adapter(slotted[2], [2]), random_adapter(slotted[2], [3, 0]))
    client, received, run = unpack_request(pack_request(7, payload, LocalRun(3, 0.1, 0.7, 2**62)))
    assert (client, run) == (7, LocalRun(3, 0.1, 0.7, 2**62))
    assert same(received.prefix, payload.prefix)
    assert same(received.tail, payload.tail)
    trained = unpack_answer(pack_trained(Trained(payload.prefix, 1 / 3)))
    assert trained.loss == 1 / 3
    assert same(trained.change, payload.prefix)


def test_frames_keep_the_order_of_layers(slotted):
    adapter = dict(reversed(random_adapter(slotted[2], [2]).items()))
    assert list(adapter) != sorted(adapter)
    for _ in range(5):
        found = unpack_answer(pack_trained(Trained(adapter, 0.5)))
        assert list(found.change) == list(adapter)
        assert freeze(found.change) == freeze(adapter)


async def test_inline_answers_in_order_with_decoded_changes(inline, slotted, task):
    updates = await inline.train(requests(slotted[2]))
    assert isinstance(inline, Executor)
    assert [update.assignment for update in updates] == [3, 4, 9]
    assert [update.num_examples for update in updates] == [task.num_examples(client) for client in (5, 0, 2)]
    column = updates[0].change["model.layers.0.self_attn.q_proj"].lora_b[:, 0]
    levels = column / (column.abs().max() / 127)
    assert (levels - levels.round()).abs().max() < 1e-3
    assert_same(updates, await inline.train(requests(slotted[2])))


async def test_a_failure_is_an_answer_and_the_others_go_on(inline, slotted):
    wild = request(1, 1, slotted[2], learning_rate=float("inf"))
    answers = await inline.train([wild, request(2, 2, slotted[2])])
    assert isinstance(answers[0], TrainingFailure)
    assert "non-finite" in answers[0].reason
    assert answers[1].assignment == 2


async def test_groups_answer_in_order_and_come_close_to_one_by_one(inline, slotted):
    wild = request(1, 1, slotted[2], learning_rate=float("inf"))
    asked = [*requests(slotted[2]), wild, request(2, 3, slotted[2], trained=1)]
    apart, grouped = await inline.train(asked), await inline.batched(2).train(asked)
    assert [type(answer) for answer in grouped] == [type(answer) for answer in apart]
    for one, other in zip(grouped, apart, strict=True):
        assert one.assignment == other.assignment
        if not isinstance(one, TrainingFailure):
            assert one.loss == pytest.approx(other.loss, abs=1e-4)
            assert (one.plan, one.num_examples) == (other.plan, other.num_examples)
    again = await inline.batched(2).train(asked)
    assert_same(*([found[position] for position in (0, 1, 2, 4)] for found in (again, grouped)))


async def test_training_leaves_the_event_loop_free(inline, slotted):
    training = asyncio.create_task(inline.train(requests(slotted[2])))
    ticks = 0
    while not training.done():
        await asyncio.sleep(0.01)
        ticks += 1
    assert ticks > 3


async def test_workers_equal_inline_bit_for_bit_and_survive_a_death(inline, slotted, task, store):
    """One test for all that needs processes: they take seconds to start."""
    expected = await inline.train(requests(slotted[2]))
    executor = WorkerExecutor(store, setup(slotted, task), 2)
    try:
        assert isinstance(executor, Executor)
        assert_same(await executor.train(requests(slotted[2])), expected)
        wild = request(1, 1, slotted[2], learning_rate=float("inf"))
        assert isinstance((await executor.train([wild]))[0], TrainingFailure)

        old = executor.pids
        os.kill(old[0], signal.SIGKILL)
        assert_same(await executor.train(requests(slotted[2])), expected)
        assert executor.pids[0] != old[0]
        assert executor.pids[1] == old[1]

        endless = asyncio.create_task(executor.train([request(5, 0, slotted[2], steps=100_000)]))
        await asyncio.sleep(0.3)
        started = time.monotonic()
        endless.cancel()
        with pytest.raises(asyncio.CancelledError):
            await endless
        assert time.monotonic() - started < 5.0
    finally:
        await executor.close()
    for pid in executor.pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    with pytest.raises(TrainingError, match="closed"):
        await executor.train([])


async def test_one_worker_gives_the_same_and_one_that_cannot_start_is_an_error(
    inline, slotted, task, store, tmp_path
):
    executor = WorkerExecutor(store, setup(slotted, task), 1)
    broken = WorkerExecutor(store, setup(slotted, task, str(tmp_path)), 1)
    try:
        assert_same(await executor.train(requests(slotted[2])), await inline.train(requests(slotted[2])))
        with pytest.raises(ModelError, match="died while it loaded"):
            await broken.train([request(1, 1, slotted[2])])
    finally:
        await executor.close()
        await broken.close()


def test_a_worker_is_told_nothing_of_the_script_that_started_it():
    script = sys.modules["__main__"]
    with workers._without_script():
        told = get_preparation_data("worker")
    assert not [key for key in told if key.startswith("init_main")]
    assert sys.modules["__main__"] is script


def test_no_workers_are_refused(slotted, task, store):
    with pytest.raises(ValueError, match="at least one worker"):
        WorkerExecutor(store, setup(slotted, task), 0)


def test_every_gpu_gets_its_share_of_workers():
    assert [placed("cuda", index, 2) for index in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert placed("auto", 1, 8) == "cuda:1"
    assert placed("auto", 1, 0) == "auto"
    assert placed("cuda", 1, 0) == "cuda"  # the worker then says that there is none
    assert placed("cpu", 1, 8) == "cpu"
