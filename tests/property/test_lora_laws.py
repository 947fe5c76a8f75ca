"""Laws 5, 6 and 13: algebra on thin factors equals algebra on dense matrices; payloads have their price."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsim.lora.basis import balanced, compact_svd
from fedsim.lora.codec import decode, encode, roundtrip
from fedsim.lora.drift import cosine, distance
from fedsim.lora.factors import Factors, add, dense, inner, moved, pad, squared_norm, stack, truncate
from fedsim.wire import WIRE_DTYPES, column_bytes
from tests.cohorts import factors

shapes = st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(0, 12), st.integers(0, 2**31))
checked = settings(max_examples=60, deadline=None)


def close(left, right, rel=1e-10):
    return float((left - right).norm()) <= rel * max(1.0, float(right.norm()))


@checked
@given(shapes, st.integers(0, 5))
def test_padding_never_changes_the_product(shape, extra):
    d_in, d_out, rank, seed = shape
    pair = factors(d_in, d_out, rank, seed, torch.float64)
    assert close(dense(pad(pair, rank + extra)), dense(pair), rel=1e-12)
    assert torch.equal(truncate(pad(pair, rank + extra), rank).lora_b, pair.lora_b)


@checked
@given(shapes, st.integers(0, 12))
def test_truncation_loses_the_energy_of_the_tail_and_no_more(shape, kept):
    d_in, d_out, rank, seed = shape
    pair = factors(d_in, d_out, rank, seed, torch.float64)
    basis = compact_svd(pair)
    cut = truncate(balanced(basis), kept)
    lost = float((dense(pair) - dense(cut)).square().sum())
    assert lost == pytest.approx(float(basis.sigma[kept:].square().sum()), rel=1e-8, abs=1e-8)


@checked
@given(shapes)
def test_the_compact_decomposition_equals_the_dense_one(shape):
    d_in, d_out, rank, seed = shape
    pair = factors(d_in, d_out, rank, seed, torch.float64)
    basis = compact_svd(pair)
    whole = torch.linalg.svdvals(dense(pair))
    assert torch.allclose(basis.sigma, whole[: basis.rank], rtol=1e-10, atol=1e-12)
    assert not (whole[basis.rank :] > 1e-6 * whole[:1]).any()
    assert close(dense(balanced(basis)), dense(pair), rel=1e-5)
    single = compact_svd(Factors(pair.lora_a.float(), pair.lora_b.float()))
    whole = torch.linalg.svdvals(dense(Factors(pair.lora_a.float().double(), pair.lora_b.float().double())))
    assert torch.allclose(single.sigma, whole[: single.rank], rtol=1e-6, atol=1e-9 * float(whole[:1].sum()))


@checked
@given(shapes, st.integers(0, 12), st.integers(0, 2**31))
def test_norms_inner_products_and_drift_equal_the_dense_ones(shape, other_rank, other_seed):
    d_in, d_out, rank, seed = shape
    left = factors(d_in, d_out, rank, seed, torch.float64)
    right = factors(d_in, d_out, other_rank, other_seed, torch.float64)
    dense_left, dense_right = dense(left), dense(right)
    assert inner(left, right) == pytest.approx(float((dense_left * dense_right).sum()), rel=1e-9, abs=1e-9)
    assert squared_norm(left) == pytest.approx(float(dense_left.square().sum()), rel=1e-9, abs=1e-9)
    between = float((dense_left - dense_right).norm())
    assert distance({"a": left}, {"a": right}) == pytest.approx(between, rel=1e-6, abs=1e-5)
    norms = float(dense_left.norm() * dense_right.norm())
    expected = float((dense_left * dense_right).sum()) / norms if norms > 0 else 0.0
    assert cosine({"a": left}, {"a": right}) == pytest.approx(expected, abs=1e-9)
    assert close(dense(stack([left, right])), dense_left + dense_right)


@checked
@given(shapes, st.integers(0, 2**31))
def test_a_step_in_the_factors_is_the_difference_of_products(shape, other_seed):
    d_in, d_out, rank, seed = shape
    start = factors(d_in, d_out, rank, seed, torch.float64)
    change = factors(d_in, d_out, rank, other_seed, torch.float64)
    assert close(dense(moved(start, change)), dense(add(start, change)) - dense(start), rel=1e-9)


@checked
@given(shapes, st.sampled_from(WIRE_DTYPES), st.sampled_from([1e-20, 1e-3, 1.0, 1e3]))
def test_payloads_have_their_price_and_decode_to_what_was_promised(shape, dtype, scale):
    d_in, d_out, rank, seed = shape
    raw = factors(d_in, d_out, rank, seed)
    pair = Factors(raw.lora_a * scale, raw.lora_b * scale)
    payload = encode(pair, dtype)
    assert len(payload) == rank * column_bytes(d_in, d_out, dtype)
    decoded, promised = decode(payload, d_in, d_out, dtype), roundtrip(pair, dtype)
    assert torch.equal(decoded.lora_a, promised.lora_a)
    assert torch.equal(decoded.lora_b, promised.lora_b)
    assert torch.equal(roundtrip(promised, dtype).lora_a, promised.lora_a) or dtype.startswith("int")
