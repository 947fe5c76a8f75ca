"""Which groups of examples belong to which devices? So that who is online decides what is learned."""

from collections.abc import Sequence

import numpy as np

from fedsim.seeds import Seeds


def owners(num_groups: int, sets: Sequence[int], seed: int) -> list[int]:
    """Deal groups of examples to sets of devices, as evenly as can be.

    Args:
        num_groups: Groups of examples.
        sets: Per device, the set it belongs to.
        seed: Of the order.

    Returns:
        Per group, a set.
    """
    distinct = np.unique(np.asarray(sets, dtype=np.int64))
    dealt = distinct[np.arange(num_groups) % len(distinct)]
    return [int(owner) for owner in Seeds(seed).generator("owners").permutation(dealt)]


def belonging(sets: Sequence[int], owner: int, strength: float) -> np.ndarray:
    """Weigh each device's share of a group that belongs to one set of devices.

    Args:
        sets: Per device, the set it belongs to; `owner` is one of them.
        owner: The set that the group belongs to.
        strength: At 0 all devices weigh the same, at 1 those of the set get everything.

    Returns:
        Array over devices, mean 1.
    """
    inside = np.asarray(sets) == owner
    weights: np.ndarray = (1.0 - strength) + strength * inside * (len(inside) / inside.sum())
    return weights
