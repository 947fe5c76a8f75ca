import pytest
import torch

from fedsim.lora.factors import (
    Factors,
    adapter_inner,
    adapter_norm,
    add,
    dense,
    inner,
    is_finite,
    moved,
    pad,
    stack,
    truncate,
    zeros,
)
from tests.cohorts import factors


def test_padding_keeps_the_product_and_truncation_undoes_it():
    pair = factors(7, 5, 3, seed=1)
    padded = pad(pair, 6)
    assert padded.rank == 6
    assert torch.equal(dense(padded), dense(pair))
    assert torch.equal(truncate(padded, 3).lora_a, pair.lora_a)


def test_padding_to_fewer_columns_is_refused():
    with pytest.raises(ValueError, match="at most 2 columns"):
        pad(factors(7, 5, 3, seed=1), 2)


def test_a_stack_adds_products():
    left, right = factors(7, 5, 3, seed=1), factors(7, 5, 2, seed=2)
    assert torch.allclose(dense(stack([left, right])), dense(left) + dense(right), atol=1e-5)


def test_inner_products_match_the_dense_ones():
    left, right = factors(9, 4, 3, seed=1), factors(9, 4, 5, seed=2)
    expected = float((dense(left).double() * dense(right).double()).sum())
    assert inner(left, right) == pytest.approx(expected, rel=1e-5)


def test_a_layer_that_one_adapter_lacks_counts_as_zero():
    left, right = {"a": factors(9, 4, 3, seed=1)}, {"b": factors(9, 4, 3, seed=2)}
    assert adapter_inner(left, right) == 0.0
    assert adapter_norm(left) == pytest.approx(float(dense(left["a"]).norm()), rel=1e-5)


def test_a_small_step_keeps_its_digits():
    """Subtracting two products would lose them: the step is 1e-6 of the factors."""
    start = factors(30, 20, 4, seed=1, dtype=torch.float64)
    tiny = factors(30, 20, 4, seed=2, dtype=torch.float64)
    change = Factors(tiny.lora_a * 1e-6, tiny.lora_b * 1e-6)
    exact = dense(add(start, change)) - dense(start)
    narrow = moved(
        Factors(start.lora_a.float(), start.lora_b.float()),
        Factors(change.lora_a.float(), change.lora_b.float()),
    )
    assert float((dense(narrow).double() - exact).norm() / exact.norm()) < 1e-6


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_numbers_are_seen(bad):
    pair = factors(4, 3, 2, seed=1)
    assert is_finite({"a": pair})
    pair.lora_b[1, 1] = bad
    assert not is_finite({"a": pair})


def test_factors_without_columns_are_a_zero_matrix():
    assert torch.equal(dense(zeros(4, 3)), torch.zeros(3, 4))
