"""What if the fleet were a little different? The same devices, with one thing changed."""

from dataclasses import replace

import numpy as np

from fedsim.seeds import Seeds
from fedsim.world.population import Population


def perturbed(
    population: Population,
    *,
    compute: float = 1.0,
    shift_s: float = 0.0,
    resample: int | None = None,
    seed: int = 0,
) -> Population:
    """Change a fleet.

    Args:
        population: As it is.
        compute: Factor on every device's speed.
        shift_s: Presence is read this much later; bandwidth and speed stay where they are. Intervals that do
            not begin again stay too.
        resample: Deal the links anew: every device follows the link of another one, drawn with replacement
            under this number; None leaves them.
        seed: Of the run; each seed deals otherwise.
    """
    changed = replace(population, compute_flops=population.compute_flops * compute)
    if shift_s:
        rows = population.intervals
        moved = rows.phase_s + np.where(np.isfinite(rows.period_s), shift_s, 0.0)
        changed = replace(changed, intervals=replace(rows, phase_s=moved))
    if resample is None:
        return changed
    rng = Seeds(seed).generator("resample_links", resample)
    drawn = rng.integers(0, population.num_devices, population.num_devices)
    own = population.connections
    return replace(
        changed,
        connections=replace(
            own,
            trace=own.trace[drawn],
            offset_s=own.offset_s[drawn],
            scale=own.scale[drawn],
            down_over_up=own.down_over_up[drawn],
            latency_s=own.latency_s[drawn],
        ),
    )
