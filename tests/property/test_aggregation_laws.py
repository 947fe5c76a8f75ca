"""Laws 7 and 14: aggregation keeps equal updates, ignores order, and stands still at learning rate zero."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsim.lora.codec import roundtrip_adapter
from fedsim.lora.factors import add, dense
from fedsim.method.aggregate import received_columns
from fedsim.method.fedhera import FedHeraOptions, assemble
from fedsim.method.messages import RankPlan
from fedsim.wire import WIRE_DTYPES
from tests.cohorts import SHAPES, decaying_adapter, random_change, update, zero_change
from tests.published_rule import relative_move

METHOD = assemble(FedHeraOptions(rank_cap=40))
checked = settings(max_examples=25, deadline=None)


@st.composite
def plans(draw):
    total = tuple(draw(st.integers(0, 12)) for _ in SHAPES)
    return RankPlan(total, tuple(draw(st.integers(0, most)) for most in total))


@st.composite
def cohorts(draw):
    members = draw(st.lists(plans(), min_size=1, max_size=5))
    shares = draw(st.lists(st.integers(1, 9), min_size=len(members), max_size=len(members)))
    return members, [share / sum(shares) for share in shares]


def start(seed=0):
    return METHOD.init(SHAPES, 3, decaying_adapter(seed=seed))


def product(state):
    return {name: dense(pair).double() for name, pair in METHOD.export(state).items()}


@checked
@given(cohorts(), st.floats(0.1, 1.0), st.integers(0, 9))
def test_coverage_identity_equals_the_explicit_sum_of_changes(cohort, discount, seed):
    members, shares = cohort
    weights = [share * discount for share in shares]
    state = start(seed)
    updates = [update(i, 0, ranks, random_change(ranks, seed=i + seed)) for i, ranks in enumerate(members)]
    expected = product(state)
    for item, weight in zip(updates, weights, strict=True):
        for layer, trained in zip(SHAPES, item.plan.trained, strict=True):
            if trained:
                before = received_columns(state, layer, trained)
                step = dense(add(before, item.change[layer.name])).double() - dense(before).double()
                expected[layer.name] = expected[layer.name] + weight * step
    assert relative_move(expected, product(METHOD.aggregate(state, updates, weights))) < 5e-6


@checked
@given(cohorts(), st.sampled_from(WIRE_DTYPES))
def test_learning_rate_zero_stands_still(cohort, dtype):
    members, weights = cohort
    state = start()
    before = product(state)
    for version in range(5):
        updates = [
            update(i, version, ranks, roundtrip_adapter(zero_change(METHOD, state, ranks), dtype))
            for i, ranks in enumerate(members)
        ]
        state = METHOD.aggregate(state, updates, weights)
    assert relative_move(before, product(state)) < 1e-5


@checked
@given(cohorts(), st.randoms(use_true_random=False))
def test_order_of_arrival_does_not_matter(cohort, shuffler):
    members, weights = cohort
    pairs = [
        (update(i, 0, ranks, random_change(ranks, seed=i)), weight)
        for i, (ranks, weight) in enumerate(zip(members, weights, strict=True))
    ]
    first = METHOD.aggregate(start(), [u for u, _ in pairs], [w for _, w in pairs])
    shuffler.shuffle(pairs)
    second = METHOD.aggregate(start(), [u for u, _ in pairs], [w for _, w in pairs])
    for name in first.basis:
        assert torch.equal(first.basis[name].sigma, second.basis[name].sigma)
        assert torch.equal(first.basis[name].u, second.basis[name].u)


@checked
@given(plans(), st.integers(1, 5))
def test_equal_updates_aggregate_to_that_update(ranks, count):
    change = random_change(ranks, seed=2)
    alone = METHOD.aggregate(start(), [update(0, 0, ranks, change)], [1.0])
    many = METHOD.aggregate(start(), [update(i, 0, ranks, change) for i in range(count)], [1 / count] * count)
    assert relative_move(product(alone), product(many)) < 5e-6


@checked
@given(cohorts())
def test_alignments_are_cosines(cohort):
    members, weights = cohort
    updates = [update(i, 0, ranks, random_change(ranks, seed=i)) for i, ranks in enumerate(members)]
    scores = METHOD.align(start(), updates, weights)
    assert set(scores) == set(range(len(members)))
    assert all(-1.0 <= score <= 1.0 for score in scores.values())
    still = [i for i, ranks in enumerate(members) if not any(ranks.trained)]
    assert all(scores[i] == 0.0 for i in still)
    if len(members) == 1 and not still:
        assert scores[0] == pytest.approx(1.0)
