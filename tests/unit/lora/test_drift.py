import itertools

import pytest
import torch

from fedsim.lora.drift import cosine, dispersion, distance, grams
from fedsim.lora.factors import Factors, dense, zeros
from tests.cohorts import factors


def flat(adapter, names=("a", "b")):
    return torch.cat([dense(adapter[name]).double().flatten() for name in names])


@pytest.fixture
def updates():
    return [{"a": factors(9, 7, 1 + i, seed=i), "b": factors(5, 8, 2, seed=50 + i)} for i in range(4)]


def test_distance_and_cosine_equal_the_dense_ones(updates):
    left, right = flat(updates[0]), flat(updates[1])
    assert distance(updates[0], updates[1]) == pytest.approx(float((left - right).norm()), rel=1e-5)
    expected = float(left @ right / left.norm() / right.norm())
    assert cosine(updates[0], updates[1]) == pytest.approx(expected, rel=1e-4)


def test_an_update_is_at_no_distance_from_itself(updates):
    assert distance(updates[0], updates[0]) == pytest.approx(0.0, abs=1e-5)
    assert cosine(updates[0], updates[0]) == pytest.approx(1.0)
    opposite = {n: Factors(-f.lora_a, f.lora_b) for n, f in updates[0].items()}
    assert cosine(updates[0], opposite) == pytest.approx(-1.0)


def test_a_zero_update_stands_at_a_right_angle(updates):
    assert cosine(updates[0], {"a": zeros(9, 7, 2)}) == 0.0


def test_grams_hold_every_inner_product(updates):
    for name, gram in grams(updates).items():
        for i, j in itertools.product(range(4), repeat=2):
            expected = float((dense(updates[i][name]).double() * dense(updates[j][name]).double()).sum())
            assert float(gram[i, j]) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_grams_take_a_missing_layer_as_zero(updates):
    gram = grams([updates[0], {"b": updates[1]["b"]}])["a"]
    assert float(gram[1, 1]) == 0.0
    assert float(gram[0, 0]) > 0.0


def test_dispersion_equals_the_mean_over_pairs(updates):
    updates[3] = {**updates[3], "a": zeros(9, 7, 1)}
    updates[2] = {**updates[2], "a": zeros(9, 7, 1)}
    total, weights = 0.0, 0.0
    for name in ("a", "b"):
        flats = [dense(u[name]).double().flatten() for u in updates]
        pairs = [pair_cosine(x, y) for x, y in itertools.combinations(flats, 2)]
        weight = sum(float(x.norm()) for x in flats) / 4
        total += weight * (1 - sum(pairs) / len(pairs))
        weights += weight
    assert dispersion(grams(updates)) == pytest.approx(total / weights, rel=1e-6)


def pair_cosine(x, y):
    zero_x, zero_y = not x.any(), not y.any()
    if zero_x or zero_y:
        return 1.0 if zero_x and zero_y else 0.0
    return float(x @ y / x.norm() / y.norm())


def test_dispersion_is_undefined_for_one_update_and_for_zeros(updates):
    assert dispersion(grams(updates[:1])) is None
    assert dispersion(grams([{"a": zeros(9, 7, 1)}, {"a": zeros(9, 7, 1)}])) is None


def test_equal_updates_do_not_disperse(updates):
    assert dispersion(grams([updates[0]] * 3)) == pytest.approx(0.0, abs=1e-9)
