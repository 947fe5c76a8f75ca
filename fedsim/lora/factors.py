"""What is an adapter? Per layer a pair of thin factors whose product is the weight update, scaling 1.

``W = lora_b @ lora_a`` with `lora_b` (d_out x rank, paper: B or P) and `lora_a` (rank x d_in, paper: A or
Q). The scale alpha / r of the usual parametrisation is absorbed once, so a column means the same at every
rank. This module does not know where factors come from or how they are trained.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """The adapter of one layer.

    Args:
        lora_a: Rows are directions of the input.
        lora_b: Columns are directions of the output.
    """

    lora_a: Float[Tensor, "rank d_in"]
    lora_b: Float[Tensor, "d_out rank"]

    @property
    def rank(self) -> int:
        """Number of columns."""
        return self.lora_a.shape[0]

    @property
    def d_in(self) -> int:
        """Input features."""
        return self.lora_a.shape[1]

    @property
    def d_out(self) -> int:
        """Output features."""
        return self.lora_b.shape[0]


Adapter: TypeAlias = Mapping[str, Factors]


def zeros(d_in: int, d_out: int, rank: int = 0, dtype: torch.dtype = torch.float32) -> Factors:
    """Return factors whose product is zero."""
    return Factors(lora_a=torch.zeros(rank, d_in, dtype=dtype), lora_b=torch.zeros(d_out, rank, dtype=dtype))


def dense(factors: Factors) -> Float[Tensor, "d_out d_in"]:
    """Multiply the factors out. For tests and export; everything else stays thin."""
    return factors.lora_b @ factors.lora_a


def columns(factors: Factors, start: int, stop: int) -> Factors:
    """Return the columns from `start` up to `stop`, fewer where the factors end."""
    return Factors(lora_a=factors.lora_a[start:stop], lora_b=factors.lora_b[:, start:stop])


def truncate(factors: Factors, rank: int) -> Factors:
    """Return the first `rank` columns, all of them where there are fewer."""
    return columns(factors, 0, rank)


def pick(factors: Factors, chosen: Sequence[int]) -> Factors:
    """Return the listed columns, in this order."""
    index = torch.tensor(list(chosen), dtype=torch.long)
    return Factors(lora_a=factors.lora_a[index], lora_b=factors.lora_b[:, index])


def pad(factors: Factors, rank: int) -> Factors:
    """Append zero columns up to `rank`; the product does not change.

    Raises:
        ValueError: If the factors have more columns than that.
    """
    missing = rank - factors.rank
    if missing < 0:
        raise ValueError(f"expected at most {rank} columns to pad, got {factors.rank}; truncate first")
    return Factors(
        lora_a=torch.nn.functional.pad(factors.lora_a, (0, 0, 0, missing)),
        lora_b=torch.nn.functional.pad(factors.lora_b, (0, missing)),
    )


def stack(parts: Sequence[Factors]) -> Factors:
    """Concatenate columns: the product of the stack is the sum of the products."""
    return Factors(
        lora_a=torch.cat([part.lora_a for part in parts], dim=0),
        lora_b=torch.cat([part.lora_b for part in parts], dim=1),
    )


def add(left: Factors, right: Factors) -> Factors:
    """Add two pairs number by number (same ranks): a step taken in the factors, not in their product."""
    return Factors(lora_a=left.lora_a + right.lora_a, lora_b=left.lora_b + right.lora_b)


def moved(start: Factors, change: Factors) -> Factors:
    """Return thin factors of ``(P + dP)(Q + dQ) - P Q`` without subtracting two products.

    The difference equals ``dP (Q + dQ) + P dQ``, so a small change keeps all its digits.
    """
    return Factors(
        lora_a=torch.cat([start.lora_a + change.lora_a, change.lora_a], dim=0),
        lora_b=torch.cat([change.lora_b, start.lora_b], dim=1),
    )


def inner(left: Factors, right: Factors) -> float:
    """Frobenius inner product of the two products, summed in float64; no dense matrix is formed."""
    output = left.lora_b.T.double() @ right.lora_b.double()
    features = left.lora_a.double() @ right.lora_a.T.double()
    return float((output * features).sum())


def squared_norm(factors: Factors) -> float:
    """Squared Frobenius norm of the product; never negative."""
    return max(0.0, inner(factors, factors))


def adapter_inner(left: Adapter, right: Adapter) -> float:
    """Inner product over all layers that both adapters have; a missing layer is zero."""
    return math.fsum(inner(factors, right[name]) for name, factors in left.items() if name in right)


def adapter_norm(adapter: Adapter) -> float:
    """Frobenius norm over all layers together."""
    return math.sqrt(math.fsum(squared_norm(factors) for factors in adapter.values()))


def is_finite(adapter: Adapter) -> bool:
    """Whether every number of every factor is finite."""
    return all(
        bool(torch.isfinite(factors.lora_a).all()) and bool(torch.isfinite(factors.lora_b).all())
        for factors in adapter.values()
    )
