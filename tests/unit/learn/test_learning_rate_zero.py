"""Learning rate zero: the global adapter stays, through real training and every wire format."""

import asyncio
from dataclasses import replace

import pytest
import torch

from fedsim.learn.executors.inline import InlineExecutor
from fedsim.learn.train import TrainingSettings
from fedsim.learn.trainer import ClientTrainer
from fedsim.learn.versions import VersionStore
from fedsim.lora.factors import Factors, dense
from fedsim.method.catalogue import build_method
from fedsim.wire import WIRE_DTYPES
from tests.unit.learn.toy import request

RANK = 12


def decaying_adapter(shape):
    """Singular values that halve from one column to the next, the first one 1."""
    generator = torch.Generator().manual_seed(0)
    adapter = {}
    for layer in shape.layers:
        u = torch.linalg.qr(torch.randn(layer.d_out, RANK, generator=generator)).Q
        v = torch.linalg.qr(torch.randn(layer.d_in, RANK, generator=generator)).Q
        adapter[layer.name] = Factors(lora_a=v.T, lora_b=u * 0.5 ** torch.arange(RANK))
    return adapter


async def rounds(executor, store, shape, learning_rate, num_rounds):
    for version in range(num_rounds):
        requests = [
            request(10 * version + client, client, shape, version=version, total=8, trained=trained, steps=1)
            for client, trained in ((0, 2), (3, 8), (5, 4))
        ]
        requests = [
            replace(each, assignment=replace(each.assignment, learning_rate=learning_rate))
            for each in requests
        ]
        updates = await executor.train(requests)
        combined = await store.aggregate(version, updates, [0.2, 0.5, 0.3])
        assert not combined.failed
    return store.export(num_rounds)


def relative_change(shape, before, after):
    moved = sum(float((dense(after[s.name]) - dense(before[s.name])).square().sum()) for s in shape.layers)
    size = sum(float(dense(before[s.name]).square().sum()) for s in shape.layers)
    return (moved / size) ** 0.5


@pytest.mark.parametrize(
    "wire_dtype",
    [
        pytest.param(name, marks=[] if name in {"float32", "int4"} else [pytest.mark.slow])
        for name in WIRE_DTYPES
    ],
)
def test_nothing_moves_at_learning_rate_zero_and_something_does_otherwise(slotted, task, wire_dtype):
    loaded, slot, shape = slotted
    settings = TrainingSettings(batch_size=2, max_length=48, wire_dtype=wire_dtype)
    start = decaying_adapter(shape)
    moved = {}
    for learning_rate, num_rounds in ((0.0, 5), (1e-2, 1)):
        store = VersionStore(build_method("fedhera", {}), shape.layers, 0, start)
        trainer = ClientTrainer(loaded, slot, task, settings)
        executor = InlineExecutor(store, trainer, task, settings)
        end = asyncio.run(rounds(executor, store, shape, learning_rate, num_rounds))
        moved[learning_rate] = relative_change(shape, start, end)
    assert moved[0.0] < 1e-5
    assert moved[1e-2] > 1e-3
