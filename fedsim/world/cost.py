"""What does one assignment cost a device: bytes, memory and floating-point operations?

Everything is linear in the ranks, so a cost model is a set of prices per column and layer. The allocator pays
them, the clock turns them into seconds, and tests recompute them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from fedsim.errors import ScenarioError
from fedsim.wire import WireDtype, column_bytes, vector_bytes
from fedsim.world.shape import ModelShape

KEPT_PLANS = 4096
"""Distinct plans whose bills are kept."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What a client is asked to compute.

    Args:
        batch_size: Sequences per step.
        max_length: Tokens per sequence, padding included.
        local_steps: Optimizer steps per assignment.
        wire_dtype: Number format of adapter columns on both links.
        base_bytes: Bytes per weight of the frozen base.
        factor_bytes: Bytes per adapter number held in memory.
        grad_bytes: Bytes per trained number for its gradient.
        optimizer_bytes: Bytes per trained number for the optimizer's state.
        activation_bytes: Bytes per activation number.
    """

    batch_size: int
    max_length: int
    local_steps: int
    wire_dtype: WireDtype
    base_bytes: float = 2.0
    factor_bytes: float = 4.0
    grad_bytes: float = 4.0
    optimizer_bytes: float = 8.0
    activation_bytes: float = 2.0

    @property
    def tokens(self) -> int:
        """Padded tokens per step."""
        return self.batch_size * self.max_length


class Ranks(Protocol):
    """A plan, as far as prices are concerned; columns per layer."""

    @property
    def total(self) -> Sequence[int]:
        """Received."""
        ...

    @property
    def trained(self) -> Sequence[int]:
        """Trained."""
        ...

    @property
    def merged(self) -> Sequence[int]:
        """Received and folded into the base; may be empty."""
        ...


@dataclass(frozen=True, slots=True)
class Bill:
    """What one plan costs.

    Args:
        bytes_down: Sent to the client.
        merged_bytes: Of these, to be folded into its base.
        bytes_up: Sent back.
        memory_bytes: Peak memory of training.
        flops: Of all local steps.
    """

    bytes_down: int
    merged_bytes: int
    bytes_up: int
    memory_bytes: float
    flops: float


@dataclass(frozen=True, slots=True, eq=False)
class OutputPrices:
    """Prices of the output half of a column, for methods that neither send nor train ``lora_a``.

    Args:
        column_bytes: Per column, int64 (L,).
        train_memory: Bytes per trained column on top of the received one (L,).
        train_flops: FLOP per trained column on top of the received one, all local steps (L,).
    """

    column_bytes: np.ndarray
    train_memory: np.ndarray
    train_flops: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Prices:
    """Prices of one assignment, linear in the ranks; arrays follow ``ModelShape.layers``.

    Args:
        layers: Module names.
        down_bytes: Per received column, int64 (L,).
        up_bytes: Per trained column, int64 (L,).
        tail_memory: Bytes per received column (L,).
        train_memory: Bytes per trained column on top of `tail_memory` (L,).
        group: Index of the input group of each layer (L,).
        group_memory: Bytes once per group in which any column is trained (G,).
        base_memory: Bytes of base weights, activations and logits.
        tail_flops: FLOP per received column, all local steps (L,).
        train_flops: FLOP per trained column on top of `tail_flops`, all local steps (L,).
        base_flops: FLOP of the frozen base, all local steps.
        merge_bytes: Per column that is folded into the base, int64 (L,); None: as `down_bytes`.
        held_up_bytes: Sent back per received column, trained or not, int64 (L,); None: nothing.
        dense_columns: How many columns cost as many bytes as the dense matrix of their layer, rounded up,
            int64 (L,); None: nothing is ever sent dense.
        output: Prices of the output half of a column; None where a cost model does not tell them apart.
    """

    layers: tuple[str, ...]
    down_bytes: np.ndarray
    up_bytes: np.ndarray
    tail_memory: np.ndarray
    train_memory: np.ndarray
    group: np.ndarray
    group_memory: np.ndarray
    base_memory: float
    tail_flops: np.ndarray
    train_flops: np.ndarray
    base_flops: float
    merge_bytes: np.ndarray | None = None
    held_up_bytes: np.ndarray | None = None
    dense_columns: np.ndarray | None = None
    output: OutputPrices | None = None
    _bills: dict[Ranks, Bill] = field(init=False, default_factory=dict, repr=False)

    def bill(self, plan: Ranks) -> Bill:
        """Return what a plan costs, which must be hashable; worked out once, since many clients follow it."""
        known = self._bills.get(plan)
        if known is None:
            if len(self._bills) >= KEPT_PLANS:
                self._bills.clear()
            known = self._bills[plan] = Bill(
                self.bytes_down(plan),
                self.merged_bytes(plan.merged),
                self.bytes_up(plan),
                self.memory_bytes(plan.total, plan.trained),
                self.flops(plan.total, plan.trained),
            )
        return known

    def merged_bytes(self, merged: Sequence[int]) -> int:
        """Bytes sent to the client to be folded into its base."""
        if not any(merged):
            return 0
        price = self.down_bytes if self.merge_bytes is None else self.merge_bytes
        return int(price @ np.asarray(merged, dtype=np.int64))

    def bytes_down(self, plan: Ranks) -> int:
        """Bytes sent to the client under a plan."""
        return self.download_bytes(plan.total) + self.merged_bytes(plan.merged)

    def bytes_up(self, plan: Ranks) -> int:
        """Bytes sent back under a plan."""
        held = 0
        if self.held_up_bytes is not None:
            held = int(self.held_up_bytes @ np.asarray(plan.total, dtype=np.int64))
        return self.upload_bytes(plan.trained) + held

    def download_bytes(self, total: Sequence[int]) -> int:
        """Bytes sent to the client under these received ranks."""
        return int(self.down_bytes @ np.asarray(total, dtype=np.int64))

    def upload_bytes(self, trained: Sequence[int]) -> int:
        """Bytes sent back under these trained ranks."""
        return int(self.up_bytes @ np.asarray(trained, dtype=np.int64))

    def memory_bytes(self, total: Sequence[int], trained: Sequence[int]) -> float:
        """Peak memory of training: base, activations, received columns, trained columns."""
        trained_array = np.asarray(trained)
        touched = np.unique(self.group[trained_array > 0])
        return float(
            self.base_memory
            + self.tail_memory @ np.asarray(total)
            + self.train_memory @ trained_array
            + self.group_memory[touched].sum()
        )

    def flops(self, total: Sequence[int], trained: Sequence[int]) -> float:
        """FLOP of all local steps."""
        return float(
            self.base_flops + self.tail_flops @ np.asarray(total) + self.train_flops @ np.asarray(trained)
        )


def roofline(shape: ModelShape, workload: Workload) -> Prices:
    """Price an assignment by counting operations and bytes.

    With ``u = d_in + d_out`` and ``n`` padded tokens per step: a step costs ``n (4 P + 12 S d per block + sum
    u (4 r_tot + 2 r_train))`` FLOP; memory is base weights, activations and logits, plus ``u b_p r_tot + (u
    (b_grad + b_opt) + n b_a) r_train`` and one saved input ``n d_in b_a`` per input group that trains. A
    layer that stands for several equal ones costs as much as all of them.

    Source:
        design.md section 6 and the derivations in docs/design.md. Activations follow Korthikanti et al.,
        "Reducing activation recomputation in large transformer models", 2022: ``s b h L (34 + 5 a s / h)``
        bytes at 16 bit, scaled to the activation width; logits take ``4`` numbers per token and class.
    """
    copies = np.array([layer.copies for layer in shape.layers], dtype=np.int64)
    d_in = copies * np.array([layer.d_in for layer in shape.layers], dtype=np.int64)
    u = d_in + copies * np.array([layer.d_out for layer in shape.layers], dtype=np.int64)
    column = copies * np.array(
        [column_bytes(layer.d_in, layer.d_out, workload.wire_dtype) for layer in shape.layers], dtype=np.int64
    )
    groups, group = np.unique([layer.input_group for layer in shape.layers], return_inverse=True)
    group_width = np.zeros(len(groups))
    group_width[group] = d_in
    d_out = u - d_in
    output_column = copies * np.array(
        [vector_bytes(layer.d_out, workload.wire_dtype) for layer in shape.layers], dtype=np.int64
    )
    tokens, steps = workload.tokens, workload.local_steps
    adapter_inputs = copies * tokens * workload.activation_bytes
    state_bytes = workload.grad_bytes + workload.optimizer_bytes
    attention_flops = 12.0 * workload.max_length * shape.hidden_size * shape.num_blocks
    return Prices(
        layers=tuple(layer.name for layer in shape.layers),
        down_bytes=column,
        up_bytes=column,
        tail_memory=u * workload.factor_bytes,
        train_memory=u * state_bytes + adapter_inputs,
        group=group,
        group_memory=tokens * group_width * workload.activation_bytes,
        base_memory=shape.num_params * workload.base_bytes + _activation_bytes(shape, workload),
        tail_flops=4.0 * u * tokens * steps,
        train_flops=2.0 * u * tokens * steps,
        base_flops=tokens * steps * (4.0 * shape.matmul_params + attention_flops),
        dense_columns=np.array(
            [
                -(-vector_bytes(layer.d_in * layer.d_out, workload.wire_dtype) // size)
                for layer, size in zip(shape.layers, column // copies, strict=True)
            ],
            dtype=np.int64,
        ),
        output=OutputPrices(
            output_column, d_out * state_bytes + adapter_inputs, 2.0 * d_out * tokens * steps
        ),
    )


def output_half(prices: Prices) -> Prices:
    """Return the prices of a method whose ``lora_a`` is fixed and known: it does not travel or train.

    Without a gradient for ``lora_a`` no input is saved for it, so input groups cost nothing either.

    Raises:
        ScenarioError: If the cost model does not tell the two halves of a column apart.
    """
    half = prices.output
    if half is None:
        raise ScenarioError("this cost model has no prices for methods that train lora_b alone; use roofline")
    return replace(
        prices,
        down_bytes=half.column_bytes,
        up_bytes=half.column_bytes,
        train_memory=half.train_memory,
        train_flops=half.train_flops,
        group_memory=np.zeros_like(prices.group_memory),
    )


def whole_upload(prices: Prices) -> Prices:
    """Return the prices of a method that sends back every received column."""
    return replace(prices, up_bytes=np.zeros_like(prices.up_bytes), held_up_bytes=prices.up_bytes)


def _activation_bytes(shape: ModelShape, workload: Workload) -> float:
    """Bytes of saved activations and logits of one forward pass, no checkpointing."""
    length, width = workload.max_length, workload.activation_bytes
    per_token = shape.hidden_size * 17.0 + 2.5 * shape.num_heads * length
    blocks = workload.tokens * shape.num_blocks * per_token * width
    logits = 2.0 * workload.tokens * shape.vocab_size * 4.0
    return blocks + logits
