"""Where does randomness come from? One root seed, named streams, nothing shared.

A stream is named by a path such as ``("train", client, dispatch)``. Two streams with different names are
independent, and adding a device or a purpose leaves every other stream as it was.
"""

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

_WORD = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Seeds:
    """Named, independent streams derived from one root seed.

    Args:
        root: The seed of the run, any integer.
    """

    root: int

    def seed(self, *path: str | int) -> int:
        """Return the 63-bit seed of the stream with this name."""
        name = f"{type(self.root).__name__}:{self.root}"
        for part in path:
            name += f"/{type(part).__name__}:{part}"
        return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big") >> 1

    def generator(self, *path: str | int) -> np.random.Generator:
        """Return a fresh NumPy generator for the stream with this name."""
        return np.random.default_rng(self.seed(*path))


def mix(seed: int, values: np.ndarray) -> np.ndarray:
    """Hash integers under a seed, vectorised (SplitMix64).

    Args:
        seed: A 63-bit seed, usually from `Seeds.seed`.
        values: Integers of any shape.

    Returns:
        uint64 array of the same shape, uniform and independent of the order of the values.

    Source:
        Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    with np.errstate(over="ignore"):
        z = values.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def mix_one(seed: int, value: int) -> int:
    """Hash one integer under a seed, as `mix` does, without the cost of an array."""
    z = value * 0x9E3779B97F4A7C15 + seed & _WORD
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _WORD
    z = (z ^ z >> 27) * 0x94D049BB133111EB & _WORD
    return z ^ z >> 31
