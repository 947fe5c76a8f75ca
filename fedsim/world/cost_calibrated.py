"""What does an assignment cost by measurements? The roofline's parts, each weighted by a fitted coefficient.

A step takes ``c_step + c_base F_base + c_tail F_tail + c_train F_train`` seconds, its peak memory is
``weights + c_fixed + c_blocks A_blocks + c_logits A_logits + c_held M_tail + c_trained M_train`` bytes, with
the FLOP and bytes that `fedsim.world.cost.roofline` counts. Both stay linear in the ranks, so a calibration
is another price list. A device's rate goes on counting FLOP of the base: prices are relative to ``c_base``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedsim.world.cost import Prices, Workload, roofline
from fedsim.world.shape import ModelShape

TIME_PARTS = ("step", "base", "tail", "train")
MEMORY_PARTS = ("fixed", "blocks", "logits", "held", "trained")
LOGIT_BYTES = 8.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """Fitted coefficients, and how far they were off on points that were held out.

    Args:
        time: Part -> seconds per unit.
        memory: Part -> bytes per unit.
        time_error: Median relative error of a step.
        memory_error: Median relative error of the peak.
        model: What was measured.
        machine: Where.
    """

    time: Mapping[str, float]
    memory: Mapping[str, float]
    time_error: float
    memory_error: float
    model: str
    machine: str

    @property
    def flops(self) -> float:
        """Rate of the machine, in FLOP of the base per second."""
        return 1.0 / self.time["base"]

    def caveat(self) -> str:
        """What a reader of figures must know."""
        return (
            f"Seconds and memory follow a calibration with {self.model} on {self.machine}; on points held "
            f"out of the fit it was off by {100 * self.time_error:.1f} % in time and "
            f"{100 * self.memory_error:.1f} % in memory (medians). Elsewhere it may be off by more."
        )


def time_parts(
    shape: ModelShape, workload: Workload, total: Sequence[int], trained: Sequence[int]
) -> np.ndarray:
    """Units of each part of one step, in the order of `TIME_PARTS`."""
    prices = roofline(shape, replace(workload, local_steps=1))
    tail = float(prices.tail_flops @ np.asarray(total))
    train = float(prices.train_flops @ np.asarray(trained))
    return np.array([1.0, prices.base_flops, tail, train])


def memory_parts(
    shape: ModelShape, workload: Workload, total: Sequence[int], trained: Sequence[int]
) -> np.ndarray:
    """Units of each part of the peak beyond the base weights, in the order of `MEMORY_PARTS`."""
    prices = roofline(shape, workload)
    blocks, logits = _activations(shape, workload, prices)
    held = float(prices.tail_memory @ np.asarray(total))
    touched = np.unique(prices.group[np.asarray(trained) > 0])
    training = float(prices.train_memory @ np.asarray(trained) + prices.group_memory[touched].sum())
    return np.array([1.0, blocks, logits, held, training])


def _activations(shape: ModelShape, workload: Workload, prices: Prices) -> tuple[float, float]:
    logits = LOGIT_BYTES * workload.tokens * shape.vocab_size
    weights = shape.num_params * workload.base_bytes
    return prices.base_memory - weights - logits, logits


def calibrated(shape: ModelShape, workload: Workload, fitted: Calibration) -> Prices:
    """Return the prices of an assignment under a calibration.

    Args:
        shape: The model that is priced.
        workload: What a client is asked to compute.
        fitted: Coefficients.
    """
    prices = roofline(shape, workload)
    time, memory, steps = fitted.time, fitted.memory, workload.local_steps
    blocks, logits = _activations(shape, workload, prices)
    per_step = time["step"] / time["base"]
    output = prices.output
    if output is not None:
        output = replace(
            output,
            train_memory=output.train_memory * memory["trained"],
            train_flops=output.train_flops * (time["train"] / time["base"]),
        )
    return replace(
        prices,
        base_flops=prices.base_flops + steps * per_step,
        tail_flops=prices.tail_flops * (time["tail"] / time["base"]),
        train_flops=prices.train_flops * (time["train"] / time["base"]),
        base_memory=shape.num_params * workload.base_bytes
        + memory["fixed"]
        + memory["blocks"] * blocks
        + memory["logits"] * logits,
        tail_memory=prices.tail_memory * memory["held"],
        train_memory=prices.train_memory * memory["trained"],
        group_memory=prices.group_memory * memory["trained"],
        output=output,
    )
