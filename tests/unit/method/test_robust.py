"""Rules that weigh updates by their lengths and angles."""

import numpy as np
import pytest
import torch

from fedsim.lora.factors import adapter_norm, dense
from fedsim.method.aggregate import aggregate, update_factors
from fedsim.method.fedhera import FedHeraOptions, assemble
from fedsim.method.robust import clip, geometric_median, gram_of, norms_of, trim, weigh
from tests.cohorts import SHAPES, decaying_adapter, plan, random_change, update

METHOD = assemble(FedHeraOptions(rank_cap=40))


def start():
    return METHOD.init(SHAPES, 3, decaying_adapter())


def cohort(scales=(1.0, 1.0, 1.0)):
    drawn = []
    for number, scale in enumerate(scales):
        change = random_change(plan(6, 6), seed=number + 1)
        for name, pair in change.items():
            change[name] = type(pair)(lora_a=pair.lora_a * scale, lora_b=pair.lora_b * scale)
        drawn.append(update(number, 0, plan(6, 6), change))
    return drawn


def gram(vectors):
    vectors = np.asarray(vectors, dtype=np.float64)
    return vectors @ vectors.T


def equal(count):
    return np.full(count, 1.0 / count)


def test_norms_are_those_of_the_products():
    state, updates = start(), cohort((1.0, 2.0, 0.5))
    norms = norms_of(gram_of(METHOD, {0: state}, updates))
    expected = [adapter_norm(update_factors(one, {0: state})) for one in updates]
    np.testing.assert_allclose(norms, expected, rtol=1e-6)


def test_a_clipped_update_counts_as_if_it_had_the_length_of_the_bound():
    factors = clip(2.0)(gram([[3.0, 4.0], [0.0, 1.0]]), equal(2))
    np.testing.assert_allclose(factors, [0.4, 1.0])


def test_without_a_bound_the_median_norm_is_the_bound():
    factors = clip(None)(gram([[1.0], [2.0], [10.0]]), equal(3))
    np.testing.assert_allclose(factors, [1.0, 1.0, 0.2])


def test_a_zero_update_is_left_as_it_is():
    for rule in (clip(1.0), clip(None), trim(0.2), geometric_median()):
        np.testing.assert_array_equal(rule(gram([[0.0], [0.0]]), equal(2)), [1.0, 1.0])


def test_clipping_is_exactly_the_shorter_update():
    """W + w s dW: the version moves by the clipped mean, whatever the ranks."""
    state, updates = start(), cohort((1.0, 3.0, 1.0))
    weights = [0.5, 0.3, 0.2]
    bound = adapter_norm(update_factors(updates[0], {0: state}))
    found = weigh(clip(bound), METHOD, {0: state}, updates, weights)
    made = aggregate(state, found.updates, found.weights, max_rank=64)
    assert found.defence.counted[1] < 0.5
    for layer in SHAPES:
        expected = dense(METHOD.export(state)[layer.name]).double()
        for one, weight in zip(updates, weights, strict=True):
            move = dense(update_factors(one, {0: state})[layer.name]).double()
            expected = expected + weight * found.defence.counted[one.assignment] * move
        got = dense(METHOD.export(made)[layer.name]).double()
        assert torch.allclose(got, expected, atol=3e-6 * float(expected.norm()))


def test_trimming_sets_both_ends_aside_and_keeps_the_sum_of_weights():
    weights = np.array([0.1, 0.2, 0.3, 0.3, 0.1])
    factors = trim(0.2)(gram([[5.0], [1.0], [2.0], [3.0], [100.0]]), weights)
    assert factors[1] == factors[4] == 0.0
    assert float((factors * weights).sum()) == pytest.approx(1.0)
    assert factors[0] == factors[2] == factors[3]


def test_a_share_too_small_for_one_update_trims_nobody():
    np.testing.assert_array_equal(trim(0.2)(gram([[1.0], [2.0], [9.0]]), equal(3)), [1.0, 1.0, 1.0])


def test_the_geometric_median_resists_a_minority_that_turns_around():
    """Norms alone cannot tell the flipped updates; distances can."""
    rng = np.random.default_rng(1)
    honest = rng.normal(1.0, 0.1, (6, 20))
    flipped = -honest[:2]
    vectors = np.concatenate([honest, flipped])
    factors = geometric_median()(gram(vectors), equal(8))
    mean, median = vectors.mean(axis=0), (factors * equal(8)) @ vectors
    truth = honest.mean(axis=0)
    assert np.linalg.norm(median - truth) < 0.5 * np.linalg.norm(mean - truth)
    assert float((factors * equal(8)).sum()) == pytest.approx(1.0)
    assert max(factors[6:]) < min(factors[:6])


def test_the_geometric_median_of_points_on_a_line_is_their_median():
    vectors = np.array([[0.0], [1.0], [2.0], [50.0], [1000.0]])
    found = (geometric_median()(gram(vectors), equal(5)) * equal(5)) @ vectors
    assert found[0] == pytest.approx(2.0, abs=1e-3)


def test_rules_do_not_depend_on_the_order_of_arrival():
    state, updates, weights = start(), cohort((1.0, 3.0, 0.5)), [0.5, 0.3, 0.2]
    for rule in (clip(None), trim(0.34), geometric_median()):
        there = weigh(rule, METHOD, {0: state}, updates, weights)
        back = weigh(rule, METHOD, {0: state}, updates[::-1], weights[::-1])
        assert there.defence == back.defence
        assert there.weights == back.weights


def test_who_is_set_aside_is_told_with_a_reason():
    found = weigh(trim(0.34), METHOD, {0: start()}, cohort((1.0, 3.0, 0.5)), [0.5, 0.3, 0.2])
    assert set(found.aside) == {1, 2}
    assert "its norm of" in found.aside[1]
    assert [one.assignment for one in found.updates] == [0]
    assert found.weights == pytest.approx((1.0,))
