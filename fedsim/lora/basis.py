"""How is a global update kept? As a truncated singular value decomposition per layer, from stacked factors.

The dense matrix is never formed as long as the stack is thinner than the layer: what is decomposed is a small
core. This module does not know about clients, weights or versions.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fedsim.lora.factors import Factors

RANK_TOLERANCE = 1e-6
"""A singular value counts where it exceeds this share of the largest one *of its layer*.

The noise floor lies near 4e-8: the root of float64 rounding, which is no more than the rounding of float32
factors. A threshold against the largest value of the whole model would close weak layers for good.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """Singular value decomposition of one layer's update, cut at its numerical rank.

    Args:
        u: Output directions, orthonormal columns.
        sigma: Singular values, descending, all positive; float64.
        vh: Input directions, orthonormal rows.
    """

    u: Float[Tensor, "d_out rank"]
    sigma: Float[Tensor, " rank"]
    vh: Float[Tensor, "rank d_in"]

    @property
    def rank(self) -> int:
        """Number of columns."""
        return self.sigma.shape[0]


def zero_basis(d_in: int, d_out: int, dtype: torch.dtype = torch.float32) -> Basis:
    """Return the basis of a zero matrix: no column at all."""
    return Basis(
        u=torch.zeros(d_out, 0, dtype=dtype),
        sigma=torch.zeros(0, dtype=torch.float64),
        vh=torch.zeros(0, d_in, dtype=dtype),
    )


def numerical_rank(sigma: Float[Tensor, " rank"]) -> int:
    """Count the singular values above `RANK_TOLERANCE` times the first; 0 for a zero matrix."""
    if sigma.numel() == 0 or float(sigma[0]) <= 0.0:
        return 0
    return int((sigma > RANK_TOLERANCE * sigma[0]).sum())


def leading(basis: Basis, rank: int) -> Basis:
    """Return the first `rank` columns, all of them where there are fewer."""
    return Basis(u=basis.u[:, :rank], sigma=basis.sigma[:rank], vh=basis.vh[:rank])


def compact_svd(factors: Factors, max_rank: int | None = None) -> Basis:
    """Decompose ``lora_b @ lora_a`` without forming it.

    Factors in float32 go through their Gram matrices in float64, which is nearly all matrix product. A Gram
    matrix squares the condition, so half of the digits of float64 are left, which is what float32 factors
    have. Factors in float64 keep all their digits: QR of both, and the decomposition of the core.

    Each output direction is signed so that its largest entry is positive, which makes the result a function
    of its input.

    Args:
        factors: Any stack of columns; scale them alike on both sides (see `balanced`) for best accuracy.
        max_rank: Keep at most this many columns.

    Returns:
        The basis, cut at the numerical rank and at `max_rank`; vectors in the precision of the factors. Their
        products with the singular values have the accuracy of the factors; two directions are orthogonal to
        ``1e-16 / (s_i s_j)``, singular values taken against the largest, and never better than rounding.

    Source:
        Trefethen and Bau, "Numerical Linear Algebra", 1997, lectures 10, 23 and 31; the error of the cut is
        Eckart and Young, Psychometrika 1, 1936.
    """
    if factors.rank == 0:
        return zero_basis(factors.d_in, factors.d_out, factors.lora_a.dtype)
    decompose = _by_gram if factors.lora_a.dtype == torch.float32 else _by_reflections
    whole = decompose(factors, max_rank)
    sign = _signs(whole.u)
    return Basis(u=whole.u * sign, sigma=whole.sigma, vh=whole.vh * sign[:, None])


def balanced(basis: Basis) -> Factors:
    """Return ``P = U sqrt(S)`` and ``Q = sqrt(S) V^T``: a step in either factor moves the product alike."""
    root = basis.sigma.sqrt()
    return scaled(basis, root, root)


def scaled(basis: Basis, left: Float[Tensor, " rank"], right: Float[Tensor, " rank"]) -> Factors:
    """Return ``U diag(left)`` and ``diag(right) V^T``."""
    return Factors(
        lora_a=right.to(basis.vh.dtype)[:, None] * basis.vh, lora_b=basis.u * left.to(basis.u.dtype)
    )


def _kept(sigma: Float[Tensor, " rank"], max_rank: int | None) -> int:
    """Count the columns to keep."""
    rank = numerical_rank(sigma)
    return rank if max_rank is None else min(rank, max_rank)


def _by_gram(factors: Factors, max_rank: int | None) -> Basis:
    """Decompose through ``W^T W``, seen in the row space of `lora_a`.

    With ``lora_a = root^T Q^T``, Q orthonormal, W has the singular values of ``lora_b root^T``. Q is never
    formed and nothing is solved, so `root` may be singular.
    """
    left, right = factors.lora_b.double(), factors.lora_a.double()
    root = _root(right)
    reach = (left.T @ left) @ root.T
    energy, core = torch.linalg.eigh(root @ reach)
    sigma = energy.flip(0).clamp(min=0.0).sqrt()
    rank = _kept(sigma, max_rank)
    sigma, core = sigma[:rank].clone(), core.flip(1)[:, :rank]
    u = left @ (root.T @ (core / sigma))
    vh = (reach @ (core / sigma.square())).T @ right
    return Basis(u=u.to(factors.lora_b.dtype), sigma=sigma, vh=vh.to(factors.lora_a.dtype))


def _root(rows: Float[Tensor, "rank size"]) -> Float[Tensor, "inner rank"]:
    """Return a matrix with ``root^T root = rows rows^T``.

    A Cholesky factorisation that comes to its end is as accurate as the product itself, however close to
    singular. It does not where rows repeat, are zero or outnumber their entries: there QR finds the root.
    """
    lower: Tensor
    lower, broke_off = torch.linalg.cholesky_ex(rows @ rows.T)
    if not int(broke_off):
        return lower.T
    triangle: Tensor = torch.geqrf(rows.T)[0][: min(rows.shape)].triu()
    return triangle


def _by_reflections(factors: Factors, max_rank: int | None) -> Basis:
    """Decompose through QR of both factors and the decomposition of a float64 core."""
    left, right = _triangle(factors.lora_b), _triangle(factors.lora_a.T)
    u_core, sigma, vh_core = torch.linalg.svd(left.r.double() @ right.r.double().T, full_matrices=False)
    rank = _kept(sigma, max_rank)
    u, vh = left.rotate(u_core[:, :rank]), right.rotate(vh_core[:rank].T).T.contiguous()
    return Basis(u=u, sigma=sigma[:rank].clone(), vh=vh)


@dataclass(frozen=True, slots=True, eq=False)
class _Triangle:
    """A QR factorisation that keeps Q as reflections: only the few columns in use are ever formed.

    Args:
        r: Upper triangle.
        reflections: As LAPACK stores them, below the diagonal.
        tau: Their lengths.
    """

    r: Float[Tensor, "inner columns"]
    reflections: Float[Tensor, "size inner"]
    tau: Float[Tensor, " inner"]

    def rotate(self, core: Float[Tensor, "inner kept"]) -> Float[Tensor, "size kept"]:
        """Return ``Q @ core`` in the precision of the factorisation."""
        missing = self.reflections.shape[0] - core.shape[0]
        tall = torch.nn.functional.pad(core.to(self.reflections.dtype), (0, 0, 0, missing))
        return torch.ormqr(self.reflections, self.tau, tall)


def _triangle(matrix: Float[Tensor, "size columns"]) -> _Triangle:
    """Factorise a matrix, tall or wide."""
    reflections, tau = torch.geqrf(matrix)
    inner = len(tau)
    return _Triangle(reflections[:inner].triu(), reflections[:, :inner], tau)


def _signs(u: Float[Tensor, "d_out rank"]) -> Float[Tensor, " rank"]:
    """Sign of the entry of largest magnitude of each column."""
    if u.shape[1] == 0:
        return torch.ones(0, dtype=u.dtype)
    largest = u.abs().argmax(dim=0, keepdim=True)
    return torch.where(u.gather(0, largest)[0] < 0, -1.0, 1.0).to(u.dtype)
