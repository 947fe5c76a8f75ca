import pytest
import torch

from fedsim.lora import basis as basis_module
from fedsim.lora.basis import balanced, compact_svd, leading, numerical_rank, zero_basis
from fedsim.lora.factors import Factors, dense, stack, zeros
from tests.cohorts import factors


@pytest.mark.parametrize("rank", [1, 5, 20, 60])
def test_singular_values_equal_the_dense_ones_in_float64(rank):
    """Also for a stack that is wider than the layer."""
    pair = factors(33, 21, rank, seed=3, dtype=torch.float64)
    expected = torch.linalg.svdvals(dense(pair))
    basis = compact_svd(pair)
    assert torch.allclose(basis.sigma, expected[: basis.rank], rtol=1e-10, atol=0)
    assert basis.rank == min(rank, 21)


def test_float32_factors_give_the_dense_product_back():
    pair = factors(33, 21, 6, seed=3)
    basis = compact_svd(pair)
    assert torch.allclose(dense(balanced(basis)), dense(pair), atol=1e-5 * float(dense(pair).norm()))
    assert torch.allclose(basis.u.T @ basis.u, torch.eye(6), atol=1e-5)
    assert basis.u.dtype == torch.float32
    assert basis.sigma.dtype == torch.float64


def test_repeated_columns_do_not_count():
    pair = factors(33, 21, 4, seed=3)
    twice = Factors(torch.cat([pair.lora_a, pair.lora_a]), torch.cat([pair.lora_b, pair.lora_b], dim=1))
    assert compact_svd(twice).rank == 4


def test_the_cut_loses_exactly_the_energy_of_the_tail():
    pair = factors(33, 21, 8, seed=3, dtype=torch.float64)
    whole, cut = compact_svd(pair), compact_svd(pair, max_rank=5)
    lost = float((dense(balanced(cut)) - dense(pair)).square().sum())
    assert lost == pytest.approx(float(whole.sigma[5:].square().sum()), rel=1e-9)


def test_the_sign_is_a_function_of_the_matrix_and_not_of_its_factors():
    pair = factors(33, 21, 4, seed=3, dtype=torch.float64)
    other = Factors(-2.0 * pair.lora_a, -0.5 * pair.lora_b)
    assert torch.allclose(compact_svd(pair).u, compact_svd(other).u, atol=1e-9)


def test_same_input_same_bits():
    pair = factors(33, 21, 9, seed=3)
    first, second = compact_svd(pair), compact_svd(pair)
    assert torch.equal(first.u, second.u)
    assert torch.equal(first.sigma, second.sigma)
    assert torch.equal(first.vh, second.vh)


@pytest.mark.parametrize("pair", [zeros(6, 5), zeros(6, 5, rank=3)])
def test_a_zero_matrix_has_no_columns(pair):
    basis = compact_svd(pair)
    assert basis.rank == 0
    assert torch.equal(dense(balanced(basis)), torch.zeros(5, 6))
    assert zero_basis(6, 5).rank == 0


def test_rank_is_counted_against_the_layers_own_first_value():
    assert numerical_rank(torch.tensor([1e-8, 1e-9, 1e-15], dtype=torch.float64)) == 2
    assert numerical_rank(torch.zeros(3, dtype=torch.float64)) == 0


def falling(d_in, d_out, rank, fall, seed=3):
    """Factors whose singular values fall by a constant factor, each pair with its own digits."""
    pair, root = factors(d_in, d_out, rank, seed), (fall ** torch.arange(rank)).sqrt()
    left, right = torch.linalg.qr(pair.lora_b)[0], torch.linalg.qr(pair.lora_a.T)[0].T
    return Factors(root[:, None] * right, left * root)


def repeated(times, nearly=0.0):
    one, other = factors(50, 40, 6, seed=3), factors(50, 40, 6, seed=4)
    parts = [
        Factors(one.lora_a + k * nearly * other.lora_a, one.lora_b + k * nearly * other.lora_b)
        for k in range(times)
    ]
    return stack(parts)


STACKS = {
    "plain": factors(50, 40, 12, seed=3),
    "wide": factors(50, 40, 70, seed=3),
    "wide for the output alone": factors(50, 20, 30, seed=3),
    "wide for the input alone": factors(20, 50, 30, seed=3),
    "down to the floor": falling(50, 40, 30, 0.6),
    "repeated": repeated(4),
    "nearly repeated": repeated(3, nearly=1e-6),
    "with zeros": stack([zeros(50, 40, 3), factors(50, 40, 5, seed=3), zeros(50, 40, 2)]),
    "that cancels": stack([repeated(1), Factors(-0.999 * repeated(1).lora_a, repeated(1).lora_b)]),
    "of one column": factors(50, 40, 1, seed=3),
    "tiny": Factors(1e-18 * factors(50, 40, 6, 3).lora_a, 1e-18 * factors(50, 40, 6, 3).lora_b),
    "huge": Factors(1e15 * factors(50, 40, 6, 3).lora_a, 1e15 * factors(50, 40, 6, 3).lora_b),
    "out of balance": Factors(1e6 * factors(50, 40, 6, 3).lora_a, 1e-6 * factors(50, 40, 6, 3).lora_b),
}


@pytest.mark.parametrize("pair", STACKS.values(), ids=STACKS)
def test_a_float32_stack_has_the_singular_values_of_the_dense_product(pair):
    """Each to 1e-5 of itself, down to the cut; the product to the rounding of float32."""
    whole = pair.lora_b.double() @ pair.lora_a.double()
    expected, basis = torch.linalg.svdvals(whole), compact_svd(pair)
    rank, first = basis.rank, float(expected[0])
    assert rank == int((expected > 1e-6 * first).sum())
    assert torch.allclose(basis.sigma, expected[:rank], rtol=1e-5, atol=0.0)
    product = basis.u.double() * basis.sigma @ basis.vh.double()
    assert float((product - whole).norm()) <= 2e-6 * float(whole.norm())
    share = basis.sigma / first
    allowed = 1e-6 + 1e-14 / (share[:, None] * share)
    for directions in (basis.u.T.double(), basis.vh.double()):
        assert bool(((directions @ directions.T - torch.eye(rank)).abs() <= allowed).all())
    assert basis.u.is_contiguous()
    assert basis.vh.is_contiguous()


@pytest.mark.parametrize(("pair", "falls_back"), [(STACKS["plain"], False), (STACKS["wide"], True)])
def test_qr_finds_the_root_where_cholesky_breaks_off(monkeypatch, pair, falls_back):
    calls, geqrf = [], torch.geqrf
    monkeypatch.setattr(torch, "geqrf", lambda matrix: calls.append(matrix) or geqrf(matrix))
    root = basis_module._root(pair.lora_a.double())
    assert bool(calls) == falls_back
    gram = pair.lora_a.double() @ pair.lora_a.double().T
    assert torch.allclose(root.T @ root, gram, rtol=0.0, atol=1e-12 * float(gram.norm()))


def test_both_ways_agree():
    """Float64 factors go through reflections; that those were float32 before makes no difference."""
    single = falling(50, 40, 12, 0.8)
    double = Factors(single.lora_a.double(), single.lora_b.double())
    quick, exact = compact_svd(single, max_rank=9), compact_svd(double, max_rank=9)
    assert quick.rank == exact.rank == 9
    assert torch.allclose(quick.sigma, exact.sigma, rtol=1e-9, atol=0.0)
    assert torch.allclose(quick.u.double(), exact.u, atol=1e-6)
    assert torch.allclose(quick.vh.double(), exact.vh, atol=1e-6)


def test_leading_columns_are_the_first():
    basis = compact_svd(factors(33, 21, 6, seed=3))
    cut = leading(basis, 4)
    assert cut.rank == 4
    assert torch.equal(dense(balanced(cut)), balanced(basis).lora_b[:, :4] @ balanced(basis).lora_a[:4])
    assert leading(basis, 9).rank == 6
