"""How long does a step take here, and how much memory? The real local loop, with made-up tokens.

Time is that of the process on its processor, the least over repeats, because other work on the machine
only ever adds to it; on a GPU it is wall time around a synchronised step. Memory is the peak of what PyTorch
has allocated, interpreter and libraries left out.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from fedsim.learn.cohort import train_client
from fedsim.learn.encode import Encoded
from fedsim.learn.model import LoadedModel
from fedsim.learn.peft_bridge import AdapterSlot
from fedsim.learn.train import LocalRun, TrainingSettings
from fedsim.lora.factors import Adapter, Factors
from fedsim.method.bundle import Payload
from fedsim.world.shape import LayerShape


@dataclass(frozen=True, slots=True)
class Point:
    """One place of the design.

    Args:
        total: Columns received, at every layer.
        trained: Columns trained, at every layer.
        batch_size: Sequences per step.
        max_length: Tokens per sequence.
    """

    total: int
    trained: int
    batch_size: int
    max_length: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What was found there.

    Args:
        point: Where.
        step_s: Seconds per step.
        peak_bytes: Base weights included.
    """

    point: Point
    step_s: float
    peak_bytes: float


def probe(
    loaded: LoadedModel,
    slot: AdapterSlot,
    layers: Sequence[LayerShape],
    points: Sequence[Point],
    *,
    repeats: int = 3,
    tell: Callable[[int], None] = lambda _: None,
) -> list[Measured]:
    """Measure points, round after round.

    All points take turns, so that what slows the machine down for some seconds meets no point in all of its
    repeats.

    Args:
        loaded: Base model.
        slot: Where adapters are loaded into it.
        layers: That carry an adapter.
        points: What to measure.
        repeats: How often each; the least counts.
        tell: Told how many rounds are done.
    """
    benches = [
        _Bench(loaded, slot, _payload(layers, point), _shard(loaded, point), point) for point in points
    ]
    weights = sum(weight.numel() * weight.element_size() for weight in loaded.model.parameters())
    peaks = [weights + bench.peak_bytes() for bench in benches]  # warms up too
    one, three = ([math.inf] * len(points) for _ in range(2))
    for done in range(repeats):
        for number, bench in enumerate(benches):
            one[number] = min(one[number], bench.seconds(1))
            three[number] = min(three[number], bench.seconds(3))
        tell(done + 1)
    return [
        Measured(point, max(longer - shorter, 1e-9) / 2.0, peak)
        for point, shorter, longer, peak in zip(points, one, three, peaks, strict=True)
    ]


@dataclass(frozen=True, slots=True, eq=False)
class _Bench:
    loaded: LoadedModel
    slot: AdapterSlot
    payload: Payload
    shard: Sequence[Encoded]
    point: Point

    def run(self, steps: int) -> None:
        settings = TrainingSettings(self.point.batch_size, self.point.max_length, "float32")
        train_client(
            self.slot,
            self.payload,
            self.shard,
            run=LocalRun(steps, 1e-4, 1.0, 0),
            settings=settings,
            pad_id=self.loaded.tokenizer.pad_token_id,
        )
        if self.loaded.device.type == "cuda":
            torch.cuda.synchronize(self.loaded.device)

    def seconds(self, steps: int) -> float:
        """Of the process; on a GPU, where the process only waits, of the wall."""
        clock = time.perf_counter if self.loaded.device.type == "cuda" else time.process_time
        began_s = clock()
        self.run(steps)
        return clock() - began_s

    def peak_bytes(self) -> float:
        """Most that two steps have allocated at once."""
        if self.loaded.device.type == "cuda":
            before = torch.cuda.memory_allocated(self.loaded.device)
            torch.cuda.reset_peak_memory_stats(self.loaded.device)
            self.run(2)
            return float(torch.cuda.max_memory_allocated(self.loaded.device) - before)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
            self.run(2)
        changes = [
            event.nbytes() for event in found.profiler.kineto_results.events() if event.name() == "[memory]"
        ]
        return float(np.cumsum([0, *changes]).max())


def _payload(layers: Sequence[LayerShape], point: Point) -> Payload:
    rng = torch.Generator().manual_seed(0)

    def factors(rank: int) -> Adapter:
        return {
            layer.name: Factors(
                lora_a=torch.randn(rank, layer.d_in, generator=rng) * 0.01,
                lora_b=torch.randn(layer.d_out, rank, generator=rng) * 0.01,
            )
            for layer in layers
        }

    return Payload(factors(point.trained), factors(point.total - point.trained))


def _shard(loaded: LoadedModel, point: Point) -> list[Encoded]:
    """Full sequences: what a device is charged for."""
    size = int(loaded.model.config.vocab_size)
    rng = np.random.default_rng(0)
    rows = rng.integers(0, size, (point.batch_size, point.max_length)).tolist()
    return [Encoded(tuple(row), 1) for row in rows]
