import pytest
import torch

from fedsim.errors import ProtocolError
from fedsim.lora.factors import add, dense
from fedsim.method.aggregate import aggregate, received_columns, update_factors
from fedsim.method.bundle import BasisState
from fedsim.method.fedhera import FedHeraOptions, assemble
from fedsim.method.messages import RankPlan
from tests.cohorts import SHAPES, decaying_adapter, factors, plan, random_change, update

METHOD = assemble(FedHeraOptions(rank_cap=40))


def start(adapter=None) -> BasisState:
    return METHOD.init(SHAPES, 3, decaying_adapter() if adapter is None else adapter)


def product(state):
    return {name: dense(pair).double() for name, pair in METHOD.export(state).items()}


def explicit_sum(state, updates, weights, versions):
    """W + sum of w_i (P'Q' - PQ), each product formed."""
    result = product(state)
    for item, weight in zip(updates, weights, strict=True):
        base = versions[item.base_version]
        for layer, trained in zip(SHAPES, item.plan.trained, strict=True):
            if trained:
                received = received_columns(base, layer, trained)
                after = add(received, item.change[layer.name])
                difference = dense(after).double() - dense(received).double()
                result[layer.name] = result[layer.name] + weight * difference
    return result


PLANS = [RankPlan((6, 4, 8, 3), (2, 4, 1, 0)), RankPlan((9, 9, 9, 9), (9, 3, 5, 3)), plan(12, 12)]


def cohort(versions=(0, 0, 0)):
    return [
        update(i, v, p, random_change(p, seed=i + 1))
        for i, (p, v) in enumerate(zip(PLANS, versions, strict=True))
    ]


@pytest.mark.parametrize("weights", [[0.5, 0.3, 0.2], [0.2, 0.1, 0.05]])
def test_the_coverage_identity_is_the_sum_of_changes(weights):
    """Also where the weights are discounted, and where fresh columns are trained (the third plan)."""
    state, updates = start(), cohort()
    expected = explicit_sum(state, updates, weights, {0: state})
    got = product(aggregate(state, updates, weights, max_rank=64))
    for name, value in expected.items():
        assert torch.allclose(got[name], value, atol=2e-6 * float(value.norm()))


def test_updates_from_an_earlier_version_are_taken_against_it():
    old = start()
    state = aggregate(old, cohort(), [0.5, 0.3, 0.2], max_rank=64)
    updates, weights = cohort(versions=(0, 1, 0)), [0.3, 0.4, 0.2]
    expected = explicit_sum(state, updates, weights, {0: old, 1: state})
    got = product(aggregate(state, updates, weights, {0: old}, max_rank=64))
    for name, value in expected.items():
        assert torch.allclose(got[name], value, atol=5e-6 * float(value.norm()))


def test_a_released_version_is_a_bug():
    state = aggregate(start(), cohort(), [0.5, 0.3, 0.2], max_rank=64)
    with pytest.raises(ProtocolError, match="version 0 was released too early"):
        aggregate(state, cohort(), [0.5, 0.3, 0.2], max_rank=64)


def test_columns_that_everybody_trained_leave_no_trace_of_the_old_basis():
    """All zero but the trained prefix: the rank of the result is that of the prefix alone."""
    state = start()
    ranks = plan(10, 10)
    change = {}
    for layer in SHAPES:
        received = received_columns(state, layer, 10)
        change[layer.name] = type(received)(-received.lora_a, -received.lora_b)
    # Three thirds do not sum to one in floating point.
    thirds = [update(i, 0, ranks, change) for i in range(3)]
    after = aggregate(state, thirds, [1 / 3] * 3, max_rank=64)
    assert all(basis.rank == 0 for basis in after.basis.values())


def test_equal_updates_give_that_update():
    state, ranks = start(), plan(8, 3)
    one = random_change(ranks, seed=4)
    alone = aggregate(state, [update(0, 0, ranks, one)], [1.0], max_rank=64)
    many = aggregate(state, [update(i, 0, ranks, one) for i in range(4)], [0.1, 0.2, 0.3, 0.4], max_rank=64)
    for name, value in product(alone).items():
        assert torch.allclose(product(many)[name], value, atol=2e-6 * float(value.norm()))


def test_the_order_of_arrival_does_not_matter_to_the_last_bit():
    state, updates = start(), cohort()
    first = aggregate(state, updates, [0.5, 0.3, 0.2], max_rank=64)
    second = aggregate(state, updates[::-1], [0.2, 0.3, 0.5], max_rank=64)
    for name in first.basis:
        assert torch.equal(first.basis[name].u, second.basis[name].u)
        assert torch.equal(first.basis[name].sigma, second.basis[name].sigma)


def test_the_result_is_cut_at_the_cap():
    after = aggregate(start(), cohort(), [0.5, 0.3, 0.2], max_rank=5)
    assert {basis.rank for basis in after.basis.values()} == {5}


@pytest.mark.parametrize("versions", [(0,), (0, 1)])
def test_versions_share_the_layers_that_nobody_trained(versions):
    ranks = RankPlan((6, 6, 6, 6), (3, 0, 2, 0))
    states = {0: start()}
    states[1] = aggregate(states[0], cohort(), [0.5, 0.3, 0.2], max_rank=64)
    updates = [update(i, v, ranks, random_change(ranks, seed=i)) for i, v in enumerate(versions)]
    newest = states[max(versions)]
    made = aggregate(newest, updates, [0.3] * len(updates), states, max_rank=64)
    shared = {name for name in made.basis if made.basis[name] is newest.basis[name]}
    assert shared == {"block.0.k", "block.0.down"}


def test_update_factors_are_after_minus_before():
    state = start()
    item = cohort()[1]
    for layer, trained in zip(SHAPES, item.plan.trained, strict=True):
        received = received_columns(state, layer, trained)
        exact = dense(add(received, item.change[layer.name])) - dense(received)
        assert torch.allclose(dense(update_factors(item, {0: state})[layer.name]), exact, atol=1e-4)


def test_a_layer_missing_from_the_upload_did_not_change():
    state, ranks = start(), plan(4, 2)
    after = aggregate(state, [update(0, 0, ranks, {})], [1.0], max_rank=64)
    for name, value in product(state).items():
        assert torch.allclose(product(after)[name], value, atol=1e-6 * float(value.norm()))


def test_a_change_of_another_rank_is_a_bug():
    wrong = {SHAPES[0].name: factors(24, 24, 3, seed=1)}
    with pytest.raises(ProtocolError, match="expected a change of 2 columns, got 3"):
        aggregate(start(), [update(0, 0, plan(4, 2), wrong)], [1.0], max_rank=64)


@pytest.mark.parametrize("weights", [[0.5], [0.5, 0.3, 0.3], [1.2, -0.4, 0.2]])
def test_weights_must_be_a_partition(weights):
    with pytest.raises(ProtocolError, match="weight"):
        aggregate(start(), cohort(), weights, max_rank=64)
