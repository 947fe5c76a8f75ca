import pytest
import torch

from fedsim.lora.basis import balanced, compact_svd, numerical_rank, zero_basis
from fedsim.lora.factors import Factors, dense, zeros
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
