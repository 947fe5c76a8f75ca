"""What would an assignment cost by the constants of the published FedHera code? For its tables only.

A column of layer l costs ``2 u`` bytes, ``7 u`` bytes of memory and ``1.7e-4 u`` milliseconds, with ``u =
d_in + d_out``, whatever the model, the data or the device; the frozen base, activations and the tail cost
nothing. Time is charged as if a device did one operation per second: plan with the rate `SECONDS_FLOPS`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fedsim.world.cost import OutputPrices, Prices
from fedsim.world.shape import ModelShape

Tier = Literal["low", "medium", "high"]

TIERS: Mapping[Tier, tuple[int, int]] = {"low": (4, 32), "medium": (8, 48), "high": (16, 64)}
"""Tier -> trained and received rank that its budgets are made for."""

SETTINGS: Mapping[str, Mapping[Tier, float]] = {
    "setting_a": {"low": 1 / 3, "medium": 1 / 3, "high": 1 / 3},
    "setting_b": {"low": 0.3, "medium": 0.5, "high": 0.2},
}
"""Share of each tier in the published settings."""

SAFETY = 1.1
COLUMN_BYTES = 2
MEMORY_BYTES = 7
COLUMN_S = 1.7e-7
MEMORY_BUDGET_BYTES = 64_000 * 2**20
SECONDS_FLOPS = 1.0
"""Rate at which `paper_prices` count: one of their operations takes a second."""


@dataclass(frozen=True, slots=True)
class TierBudget:
    """The published budget of one tier.

    Args:
        download_bytes: Downlink per round.
        seconds: Training time per round.
        memory_bytes: The same for all tiers.
    """

    download_bytes: float
    seconds: float
    memory_bytes: float


def unit_sum(shape: ModelShape) -> int:
    """Return the sum of ``d_in + d_out`` over all adapted modules (paper: P1)."""
    return sum(layer.copies * (layer.d_in + layer.d_out) for layer in shape.layers)


def tier_budget(shape: ModelShape, tier: Tier) -> TierBudget:
    """Return the budget of a tier: what its two ranks cost on every layer, and a tenth.

    Source:
        The published FedHera code; docs/methods.md, published budgets.
    """
    trained, received = TIERS[tier]
    units = unit_sum(shape)
    return TierBudget(
        download_bytes=SAFETY * COLUMN_BYTES * units * received,
        seconds=SAFETY * COLUMN_S * units * trained,
        memory_bytes=MEMORY_BUDGET_BYTES,
    )


def paper_prices(shape: ModelShape) -> Prices:
    """Price an assignment by the published constants.

    Use with devices of `SECONDS_FLOPS`: operations are then seconds. Uploads cost bytes and no time in the
    source; their price per column is that of a download. The constants are per number, so a method that
    trains `lora_b` alone pays for ``d_out`` numbers of a column instead of ``u``; the source has no such
    method.
    """
    units = np.array([layer.copies * (layer.d_in + layer.d_out) for layer in shape.layers], dtype=np.int64)
    outputs = np.array([layer.copies * layer.d_out for layer in shape.layers], dtype=np.int64)
    nothing = np.zeros(len(units))
    return Prices(
        layers=tuple(layer.name for layer in shape.layers),
        down_bytes=COLUMN_BYTES * units,
        up_bytes=COLUMN_BYTES * units,
        tail_memory=nothing,
        train_memory=MEMORY_BYTES * units.astype(np.float64),
        group=np.zeros(len(units), dtype=np.int64),
        group_memory=np.zeros(1),
        base_memory=0.0,
        tail_flops=nothing,
        train_flops=COLUMN_S * units,
        base_flops=0.0,
        output=OutputPrices(
            COLUMN_BYTES * outputs, MEMORY_BYTES * outputs.astype(np.float64), COLUMN_S * outputs
        ),
    )
