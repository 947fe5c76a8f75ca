"""How is a client trained, alone or with others in one pass? The frozen base is shared, all else is its own.

The batches of all clients go through the base together, one after the other along the first dimension. In
each layer a client's rows meet its own columns (`fedsim.learn.stacked`). Each client has its own loss, the
mean over its target tokens; its own clipping, learning rate and number of steps. The loss that is
differentiated is the sum over clients, whose gradients do not mix. A client that has done its steps, or whose
loss is no number, leaves the pass. Up to rounding this is what PEFT's layers and PyTorch's AdamW give for
each client alone, in less time.

Two things are left out because they cannot change anything: the attention mask, since padding stands on the
right of causal attention, and the logits of positions that no target follows.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fedsim.errors import ModelError, TrainingError
from fedsim.learn.encode import IGNORED, Encoded, collate
from fedsim.learn.peft_bridge import AdapterSlot, to_memory
from fedsim.learn.stacked import StackedAdam, StackedLayer, penalties, stacked
from fedsim.learn.train import (
    LocalRun,
    Trained,
    TrainingSettings,
    batches,
    check_loss,
    check_trainable,
    trained,
)
from fedsim.lora.factors import Factors, stack
from fedsim.method.bundle import Payload

Outcome = Trained | str
"""What was trained, or why it failed."""


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """One client of a cohort.

    Args:
        payload: Factors as it received them.
        shard: Its examples.
        run: Steps, learning rate, gate and seed.
    """

    payload: Payload
    shard: Sequence[Encoded]
    run: LocalRun


def train_client(
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
        slot: Whose layers compute with the client's factors meanwhile.
        payload: Factors as the client received them.
        shard: Its examples, at least one.
        run: Steps, learning rate, gate and seed.
        settings: Batch size and clipping.
        pad_id: Token that fills up short sequences.

    Returns:
        The change of the prefix, and the mean loss.

    Raises:
        TrainingError: If there is nothing to train on, or loss or factors become non-finite.
        ModelError: If the model cannot be trained in this way.
    """
    (outcome,) = train_cohort(slot, [Member(payload, shard, run)], settings=settings, pad_id=pad_id)
    if isinstance(outcome, str):
        raise TrainingError(outcome)
    return outcome


def train_cohort(
    slot: AdapterSlot, members: Sequence[Member], *, settings: TrainingSettings, pad_id: int
) -> list[Outcome]:
    """Train several clients in one pass; a client that fails leaves the others alone.

    Args:
        slot: Whose layers compute with stacked factors meanwhile.
        members: The clients.
        settings: Batch size and clipping.
        pad_id: Token that fills up short sequences.

    Returns:
        What came of each client, in their order.

    Raises:
        ModelError: If the model cannot be trained in this way.
    """
    outcomes: dict[int, Outcome] = {}
    for index, member in enumerate(members):
        try:
            check_trainable(member.payload, member.shard)
        except TrainingError as error:
            outcomes[index] = str(error)
    for trains in ("both", "b_only"):
        chosen = [
            index
            for index, member in enumerate(members)
            if index not in outcomes and member.payload.rule.trains == trains
        ]
        if chosen:
            cohort = _Cohort(slot, [members[index] for index in chosen], settings)
            outcomes |= dict(zip(chosen, cohort.train(pad_id), strict=True))
    return [outcomes[index] for index in range(len(members))]


class _Cohort:
    """Clients that train the same factors of their prefix, on the way through their steps."""

    def __init__(self, slot: AdapterSlot, members: Sequence[Member], settings: TrainingSettings) -> None:
        self._slot = slot
        self._members = members
        self._settings = settings
        self._layers = stack_members(slot, members)
        self._moving = [name for name, layer in self._layers.items() if layer.prefix is not None]
        self._with_a = members[0].payload.rule.trains == "both"
        self._adam = StackedAdam(
            self._movable(), [member.run.learning_rate for member in members], settings.clip_norm
        )
        self._masks = _last_columns(self._layers, [member.payload for member in members])
        self._active = list(range(len(members)))
        self._losses = [0.0 for _ in members]
        self._outcomes: dict[int, Outcome] = {}

    def train(self, pad_id: int) -> list[Outcome]:
        """Take every step of every client."""
        walks = [batches(member.shard, member.run, self._settings.batch_size) for member in self._members]
        with self._slot.replaced({name: partial(self._compute, name) for name in self._layers}):
            step = 0
            while self._active:
                losses = self._step([next(walks[index]) for index in self._active], pad_id)
                self._settle(step, losses)
                step += 1
        return [self._outcomes[index] for index in range(len(self._members))]

    def _step(self, chosen: Sequence[Sequence[Encoded]], pad_id: int) -> list[float]:
        """Take one step; returns the loss of each active client."""
        leaves = self._adam.parts()
        self._put(leaves)
        losses = _mean_losses(self._slot.model, chosen, pad_id)
        whole = losses + penalties(self._layers, self._masks) if self._masks else losses
        torch.autograd.backward(whole.sum())
        self._adam.step()
        return [float(loss) for loss in losses.tolist()]

    def _settle(self, step: int, losses: Sequence[float]) -> None:
        """Count the losses, and let go of clients that have failed or are done."""
        staying = []
        for row, (index, loss) in enumerate(zip(self._active, losses, strict=True)):
            self._losses[index] += loss
            outcome = self._outcome(row, index, step, loss)
            if outcome is None:
                staying.append(row)
            else:
                self._outcomes[index] = outcome
        if len(staying) < len(self._active):
            self._keep(staying)

    def _outcome(self, row: int, index: int, step: int, loss: float) -> Outcome | None:
        """Return what has come of a client after a step; None while it has steps to go."""
        member = self._members[index]
        try:
            check_loss(loss, step, member.run)
            if step + 1 < member.run.steps:
                return None
            return trained(member.payload, member.run, self._prefix(row), self._losses[index])
        except TrainingError as error:
            return str(error)

    def _keep(self, rows: Sequence[int]) -> None:
        self._active = [self._active[row] for row in rows]
        if not rows:
            return
        kept = torch.tensor(rows, device=self._slot.model.device)
        self._adam.keep(kept)
        self._layers = {name: layer.rows(kept) for name, layer in self._layers.items()}
        self._masks = {name: mask.index_select(0, kept) for name, mask in self._masks.items()}

    def _compute(self, name: str, base: nn.Module, x: Tensor) -> Tensor:
        """Compute one layer, as it is at this step."""
        return self._layers[name].forward(base, x)

    def _movable(self) -> list[Tensor]:
        """Return the stacked factors that are trained, in the order of `_put`."""
        pairs = [pair for name in self._moving if (pair := self._layers[name].prefix) is not None]
        both = [factor for pair in pairs for factor in (pair.lora_a, pair.lora_b)]
        return both if self._with_a else both[1::2]

    def _put(self, leaves: Sequence[Tensor]) -> None:
        """Let the layers compute with these leaves."""
        waiting = iter(leaves)
        for name in self._moving:
            layer = self._layers[name]
            pair = layer.prefix
            if pair is not None:
                lora_a = next(waiting) if self._with_a else pair.lora_a
                self._layers[name] = layer.with_prefix(lora_a, next(waiting))

    def _prefix(self, row: int) -> dict[str, Factors]:
        """Copy the trained prefix of an active client out, to the main memory."""
        payload = self._members[self._active[row]].payload
        found = {}
        for name in self._moving:
            rank, pair = _rank(payload, name), self._layers[name].prefix
            if rank and pair is not None:
                found[name] = Factors(
                    lora_a=to_memory(pair.lora_a[row, :rank]), lora_b=to_memory(pair.lora_b[row, :, :rank])
                )
        return found


def _rank(payload: Payload, name: str) -> int:
    return payload.prefix[name].rank if name in payload.prefix else 0


def stack_members(slot: AdapterSlot, members: Sequence[Member]) -> dict[str, StackedLayer]:
    """Stack what the clients received, layer by layer; a layer without any column is left out.

    Args:
        slot: Names the layers, and tells number format and place.
        members: The clients.

    Returns:
        Layer -> what it computes, with the gate and the scaling inside the frozen columns.
    """
    payloads = [member.payload for member in members]
    layers = {}
    for name in slot.layers:
        like = slot.empty(name)
        prefix = stacked([payload.prefix.get(name) for payload in payloads], like)
        frozen = stacked([_frozen(member, name) for member in members], like)
        scales = [payload.scaling.get(name, 1.0) for payload in payloads]
        scaling = None if set(scales) == {1.0} else like.new_tensor(scales)[:, None, None]
        if prefix is not None or frozen is not None:
            layers[name] = StackedLayer(prefix, frozen, scaling)
    return layers


def _frozen(member: Member, name: str) -> Factors | None:
    """Return what a client never trains in a layer, its weight inside ``lora_b``."""
    payload, parts = member.payload, []
    weight = member.run.gate * payload.scaling.get(name, 1.0)
    tail, merged = payload.tail.get(name), payload.merged.get(name)
    if tail is not None and tail.rank and weight:
        parts.append(Factors(lora_a=tail.lora_a, lora_b=tail.lora_b * weight))
    if merged is not None and merged.rank:
        parts.append(merged)
    return stack(parts) if parts else None


def _last_columns(layers: Mapping[str, StackedLayer], payloads: Sequence[Payload]) -> dict[str, Tensor]:
    """Mark the columns that are penalised, with the square root of their weight; empty where none is."""
    if not any(payload.rule.penalty for payload in payloads):
        return {}
    masks = {}
    for name, layer in layers.items():
        if layer.prefix is None:
            continue
        mask = layer.prefix.lora_a.new_zeros(layer.prefix.lora_a.shape[:2])
        for row, payload in enumerate(payloads):
            rank = _rank(payload, name)
            first = int(payload.rule.penalty_from * rank)
            mask[row, first:rank] = payload.rule.penalty**0.5
        masks[name] = mask
    return masks


def _mean_losses(model: Any, chosen: Sequence[Sequence[Encoded]], pad_id: int) -> Tensor:
    """Return the mean loss over the target tokens of each client's batch."""
    batch = collate([example for examples in chosen for example in examples], pad_id)
    counts = batch.labels[:, 1:].ne(IGNORED).sum(dim=1).reshape(len(chosen), -1).sum(dim=1)
    follows = torch.nn.functional.pad(batch.labels[:, 1:], (0, 1), value=IGNORED).flatten()
    positions = follows.ne(IGNORED).nonzero().squeeze(1)
    labels = follows[positions].to(model.device)
    places = positions.to(model.device)
    with _logits_at(model, places) as picked:
        logits = model(input_ids=batch.input_ids.to(model.device), use_cache=False).logits.flatten(0, -2)
    expected = len(places) if picked else len(follows)
    if len(logits) != expected:
        raise ModelError(
            f"model.base: expected logits of {expected} positions, got {len(logits)}; fedsim trains causal "
            "language models, which give one row for each token"
        )
    chosen_logits = logits if picked else logits[places]
    each = nn.functional.cross_entropy(chosen_logits.float(), labels, reduction="none")
    sums = torch.stack([part.sum() for part in torch.split(each, counts.tolist())])
    return sums / counts.to(model.device)


@contextmanager
def _logits_at(model: Any, positions: Tensor) -> Iterator[list[Tensor]]:
    """Let the output layer see some positions only, for the duration of a ``with`` block.

    Yields:
        What it was asked; empty as long as the model has not called such a layer.
    """
    picked: list[Tensor] = []
    head = model.get_output_embeddings()
    if head is None:
        yield picked
        return

    def pick(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, *rest = given
        picked.append(positions)
        return hidden.flatten(0, -2).index_select(0, positions).unsqueeze(0), *rest

    hook = head.register_forward_pre_hook(pick)
    try:
        yield picked
    finally:
        hook.remove()
