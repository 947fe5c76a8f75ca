"""What may a plan know of a client besides its budget? Its memory, and what it has not seen yet.

Counts only: which columns were aggregated since the version that a client is known to hold.
"""

from collections.abc import Mapping, Sequence
from operator import sub

from fedsim.method.bundle import ClientMemory, Standing
from fedsim.method.messages import RankPlan

Stacked = Mapping[int, tuple[int, ...]]
"""Version -> columns per layer that were aggregated to make it and all before it."""


def standing(memory: ClientMemory | None, stacked: Stacked, version: int) -> Standing:
    """Tell what a plan may know of a client that is dispatched at a version.

    Args:
        memory: What the server remembers of it.
        stacked: Columns aggregated up to each version.
        version: The version it would start from.
    """
    now = stacked.get(version, ())
    held = () if memory is None else stacked.get(memory.version, ())
    return Standing(memory, tuple(map(sub, now, held)) if held else now)


def stack_of(before: tuple[int, ...], plans: Sequence[RankPlan]) -> tuple[int, ...]:
    """Count the columns of a version that these plans were aggregated into.

    Args:
        before: Columns up to the version that it replaces; empty for version 0.
        plans: Final plans of the updates, at least one.
    """
    rows = [plan.trained for plan in plans] + ([before] if before else [])
    return tuple(map(sum, zip(*rows, strict=True)))


def with_merged(plan: RankPlan, old: RankPlan) -> RankPlan:
    """Keep what was promised for the base when a client is planned again; its ranks then never grow.

    Args:
        plan: The new plan.
        old: The plan that it follows.
    """
    if not any(old.merged):
        return plan
    total = tuple(map(min, plan.total, old.total))
    return RankPlan(total, tuple(map(min, plan.trained, total)), old.merged)
