"""Who is asked? Rules that pick a cohort from the devices that are online."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fedsim.seeds import Seeds, mix


class Select(Protocol):
    """A selection rule: the candidates in the order in which they are asked."""

    def __call__(self, candidates: np.ndarray, version: int, attempt: int) -> np.ndarray:
        """Order the candidates (client indices, int64) for this version and attempt."""
        ...


@dataclass(frozen=True, slots=True)
class UniformSelect:
    """Every candidate is equally likely, and methods under one seed meet the same devices.

    The order is that of hash(seed, version, attempt, device). It does not depend on who else is online, so
    two runs that see almost the same fleet choose almost the same cohort.

    Args:
        seeds: Streams of the run.
    """

    seeds: Seeds

    def __call__(self, candidates: np.ndarray, version: int, attempt: int) -> np.ndarray:
        """Order the candidates by hash."""
        keys = mix(self.seeds.seed("select", version, attempt), candidates)
        return candidates[np.lexsort((candidates, keys))]
