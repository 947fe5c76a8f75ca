"""What is asked of a client that trains, and what comes of it? The steps: `fedsim.learn.cohort`."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fedsim.errors import TrainingError
from fedsim.learn.encode import Encoded
from fedsim.lora.factors import Adapter, Factors, is_finite, stack
from fedsim.method.bundle import Payload
from fedsim.seeds import Seeds
from fedsim.wire import WireDtype


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """What is the same for every assignment of a run.

    Args:
        batch_size: Examples per step.
        max_length: Longer examples are cut.
        wire_dtype: Number format of payloads and changes.
        clip_norm: Largest norm of the gradient over all factors.
        batch_clients: Clients that go through the base in one pass, at most; see `fedsim.learn.cohort`.
    """

    batch_size: int = 8
    max_length: int = 96
    wire_dtype: WireDtype = "float16"
    clip_norm: float = 1.0
    batch_clients: int = 1


@dataclass(frozen=True, slots=True)
class LocalRun:
    """What one assignment asks of the local loop.

    Args:
        steps: Optimizer steps.
        learning_rate: Constant over them.
        gate: Weight of the frozen tail.
        seed: Of the data order.
    """

    steps: int
    learning_rate: float
    gate: float
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One client that is to be trained.

    Args:
        client: Whose shard.
        payload: As it received it.
        run: Steps, learning rate, gate and seed.
    """

    client: int
    payload: Payload
    run: LocalRun


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """What local training yields.

    Args:
        change: Per layer with a trained prefix: the change of both factors; and of the tail, where the
            method returns it.
        loss: Mean over the steps, nats per target token, without any regulariser.
    """

    change: dict[str, Factors]
    loss: float


def check_trainable(payload: Payload, shard: Sequence[Encoded]) -> None:
    """Refuse to train nothing, or on nothing.

    Raises:
        TrainingError: If the shard is empty, or no layer has a column to train.
    """
    if not shard:
        raise TrainingError("local training: expected at least one example in the shard, got none")
    if not any(factors.rank for factors in payload.prefix.values()):
        raise TrainingError("local training: expected a plan that trains at least one column, got none")


def trained(payload: Payload, run: LocalRun, end: Adapter, total_loss: float) -> Trained:
    """Return what has come of an assignment.

    Args:
        payload: What the client received.
        run: What it was asked.
        end: Prefix after the last step, layers without columns left out.
        total_loss: Sum over the steps.

    Raises:
        TrainingError: If the factors are not finite.
    """
    change = {name: _difference(factors, payload.prefix[name]) for name, factors in end.items()}
    tail = payload.rule.tail
    if tail != "kept":
        change = _with_tail(change, payload, run.gate if tail == "returned_gated" else 1.0)
    if not is_finite(change):
        raise TrainingError(f"local training: non-finite factors after {run.steps} steps")
    return Trained(change, total_loss / run.steps)


def check_loss(loss: float, step: int, run: LocalRun) -> None:
    """Refuse a loss that is no number.

    Raises:
        TrainingError: If it is none.
    """
    if not math.isfinite(loss):
        raise TrainingError(f"local training: non-finite loss at step {step + 1} of {run.steps}")


def _with_tail(change: dict[str, Factors], payload: Payload, gate: float) -> dict[str, Factors]:
    """Append how the tail comes back: scaled by its gate, which splits evenly over both factors."""
    moved = math.sqrt(gate) - 1.0
    whole = {}
    for name, tail in payload.tail.items():
        parts = [change[name]] if name in change else []
        parts.append(Factors(lora_a=tail.lora_a * moved, lora_b=tail.lora_b * moved))
        whole[name] = stack(parts)
    return {name: factors for name, factors in whole.items() if factors.rank}


def batches(shard: Sequence[Encoded], run: LocalRun, batch_size: int) -> Iterator[list[Encoded]]:
    """Walk through the shard in seeded order, again and again, until all steps are served."""
    rng = Seeds(run.seed).generator("data_order")
    waiting: list[int] = []
    for _ in range(run.steps):
        while len(waiting) < batch_size:
            waiting.extend(rng.permutation(len(shard)).tolist())
        chosen, waiting = waiting[:batch_size], waiting[batch_size:]
        yield [shard[index] for index in chosen]


def _difference(end: Factors, start: Factors) -> Factors:
    return Factors(lora_a=end.lora_a - start.lora_a, lora_b=end.lora_b - start.lora_b)
