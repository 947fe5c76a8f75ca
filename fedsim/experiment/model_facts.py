"""What does a model cost per rank, and what does its memory go to? From the cost model."""

from dataclasses import dataclass

import numpy as np

from fedsim.wire import WireDtype, column_bytes
from fedsim.world.cost import Workload, roofline
from fedsim.world.shape import ModelShape

WIRE_DTYPES: tuple[WireDtype, ...] = ("float32", "bfloat16", "int8", "int4")


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Figures of one model with adapters of one rank at every layer.

    Args:
        name: As asked for.
        num_params: All weights.
        num_blocks: Transformer blocks.
        num_layers: Modules that carry an adapter.
        width_per_rank: Numbers per unit of rank: the sum of ``d_in + d_out``.
        bytes_per_rank: Number format on the link -> bytes per unit of rank, over all layers.
        rank: Of the memory below.
        batch_size: Of the memory below.
        max_length: Of the memory below.
        memory_bytes: Part -> bytes at training.
    """

    name: str
    num_params: int
    num_blocks: int
    num_layers: int
    width_per_rank: int
    bytes_per_rank: dict[str, int]
    rank: int
    batch_size: int
    max_length: int
    memory_bytes: dict[str, int]


def model_facts(
    shape: ModelShape, *, rank: int, batch_size: int, max_length: int, base_bytes: float
) -> ModelFacts:
    """Take the figures from the shape and the cost model.

    Args:
        shape: The model with its adapters' layers.
        rank: Received and trained, at every layer.
        batch_size: Sequences per step.
        max_length: Tokens per sequence.
        base_bytes: Bytes per frozen weight.
    """
    workload = Workload(batch_size, max_length, 1, "bfloat16", base_bytes=base_bytes)
    prices = roofline(shape, workload)
    width = sum(layer.d_in + layer.d_out for layer in shape.layers)
    weights = shape.num_params * base_bytes
    state = rank * width
    kept = len(shape.layers) * rank * workload.tokens * workload.activation_bytes
    inputs = float(np.sum(prices.group_memory))
    parts = {
        "base weights": weights,
        "activations and logits": prices.base_memory - weights,
        "adapter": state * workload.factor_bytes,
        "gradients": state * workload.grad_bytes,
        "optimizer": state * workload.optimizer_bytes,
        "adapter activations": kept + inputs,
    }
    return ModelFacts(
        name=shape.name,
        num_params=shape.num_params,
        num_blocks=shape.num_blocks,
        num_layers=len(shape.layers),
        width_per_rank=width,
        bytes_per_rank={
            dtype: sum(column_bytes(layer.d_in, layer.d_out, dtype) for layer in shape.layers)
            for dtype in WIRE_DTYPES
        },
        rank=rank,
        batch_size=batch_size,
        max_length=max_length,
        memory_bytes={name: round(size) for name, size in parts.items()},
    )
