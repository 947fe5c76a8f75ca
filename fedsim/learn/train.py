"""How does a client train? The local loop, from payload to change, top to bottom."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedsim.errors import TrainingError
from fedsim.learn.encode import Encoded, collate
from fedsim.learn.peft_bridge import AdapterSlot, factors_of
from fedsim.lora.factors import Adapter, Factors, is_finite, stack
from fedsim.method.bundle import LocalRule, Payload
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


def train_local(
    slot: AdapterSlot,
    payload: Payload,
    shard: Sequence[Encoded],
    *,
    run: LocalRun,
    settings: TrainingSettings,
    pad_id: int,
) -> Trained:
    """Train the prefix of a payload on a shard with AdamW, without weight decay.

    Only the prefix has gradients and optimizer state. With learning rate zero the change is exactly zero.

    Args:
        slot: Where the adapter is loaded; empty again afterwards.
        payload: Factors as the client received them.
        shard: Its examples, at least one.
        run: Steps, learning rate, gate and seed.
        settings: Batch size and clipping.
        pad_id: Token that fills up short sequences.

    Returns:
        The change of the prefix, and the mean loss.

    Raises:
        TrainingError: If there is nothing to train on, or loss or factors become non-finite.
    """
    check_trainable(payload, shard)
    device, rule = slot.model.device, payload.rule
    with slot.loaded(
        payload.prefix, payload.tail, run.gate, merged=payload.merged, scaling=payload.scaling
    ) as trainable:
        start = factors_of(trainable)
        parameters = _parameters(trainable, rule)
        optimizer = torch.optim.AdamW(parameters, lr=run.learning_rate, weight_decay=0.0)
        total_loss = 0.0
        for step, examples in enumerate(batches(shard, run, settings.batch_size)):
            batch = collate(examples, pad_id)
            loss = slot.model(
                input_ids=batch.input_ids.to(device),
                attention_mask=batch.attention_mask.to(device),
                labels=batch.labels.to(device),
                use_cache=False,
            ).loss
            step_loss = float(loss.detach())
            check_loss(step_loss, step, run)
            (loss + _penalty(trainable, rule) if rule.penalty else loss).backward()
            torch.nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            total_loss += step_loss
        end = factors_of(trainable)
    return trained(payload, run, start, end, total_loss)


def check_trainable(payload: Payload, shard: Sequence[Encoded]) -> None:
    """Refuse to train nothing, or on nothing.

    Raises:
        TrainingError: If the shard is empty, or no layer has a column to train.
    """
    if not shard:
        raise TrainingError("local training: expected at least one example in the shard, got none")
    if not any(factors.rank for factors in payload.prefix.values()):
        raise TrainingError("local training: expected a plan that trains at least one column, got none")


def trained(payload: Payload, run: LocalRun, start: Adapter, end: Adapter, total_loss: float) -> Trained:
    """Return what has come of an assignment.

    Args:
        payload: What the client received.
        run: What it was asked.
        start: Prefix before the first step, layers without columns left out.
        end: Prefix after the last.
        total_loss: Sum over the steps.

    Raises:
        TrainingError: If the factors are not finite.
    """
    change = {name: _difference(end[name], start[name]) for name in start}
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


def _parameters(trainable: Mapping[str, tuple[Tensor, Tensor]], rule: LocalRule) -> list[Tensor]:
    """Return what the optimizer moves; the rest of the prefix gets no gradient."""
    if rule.trains == "both":
        return [factor for pair in trainable.values() for factor in pair]
    for lora_a, _ in trainable.values():
        lora_a.requires_grad = False
    return [lora_b for _, lora_b in trainable.values()]


def _penalty(trainable: Mapping[str, tuple[Tensor, Tensor]], rule: LocalRule) -> Tensor:
    """Weigh the last columns: the sum over layers of the product of their norms."""
    products = []
    for lora_a, lora_b in trainable.values():
        first = int(rule.penalty_from * lora_a.shape[0])
        products.append(torch.linalg.norm(lora_b[:, first:]) * torch.linalg.norm(lora_a[first:]))
    return rule.penalty * torch.stack(products).sum()


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
