"""Staleness that damps only what of an update lies outside the newest basis."""

from dataclasses import replace

import pytest
import torch

from fedsim.lora.factors import add, dense
from fedsim.method.aggregate import aggregate, received_columns
from fedsim.method.fedhera import FedHeraOptions, assemble
from fedsim.method.messages import RankPlan
from fedsim.method.pacing import Mixing
from fedsim.method.staleness import StalenessRule
from tests.cohorts import SHAPES, decaying_adapter, plan, random_change, update, zero_change

METHOD = assemble(FedHeraOptions(rank_cap=40))
PLANS = [RankPlan((6, 4, 8, 3), (2, 4, 5, 0)), plan(9, 6), plan(12, 12)]


def versions():
    old = METHOD.init(SHAPES, 3, decaying_adapter(rank=6))
    first = update(9, 0, plan(6, 2), random_change(plan(6, 2), seed=9))
    return old, aggregate(old, [first], [0.5], max_rank=40)


def explicit(state, base, updates, weights, layer, index):
    """W + sum w (mu D + (1 - mu) U U^T D V V^T), each matrix formed."""
    basis = state.basis[layer.name]
    left, right = basis.u.double() @ basis.u.double().T, basis.vh.double().T @ basis.vh.double()
    total = dense(METHOD.export(state)[layer.name]).double()
    for item, weight in zip(updates, weights, strict=True):
        trained = item.plan.trained[index]
        if trained:
            received = received_columns(base[item.base_version], layer, trained)
            change = dense(add(received, item.change[layer.name])).double() - dense(received).double()
            total += weight * (item.damping * change + (1 - item.damping) * left @ change @ right)
    return total


@pytest.mark.parametrize("dampings", [(0.5, 0.25, 1.0), (0.0, 1.0, 0.7), (1.0, 1.0, 1.0)])
def test_factors_give_what_dense_matrices_do(dampings):
    old, state = versions()
    base = {0: old, 1: state}
    updates = [
        replace(update(i, v, p, random_change(p, seed=i + 1)), damping=damping)
        for i, (v, p, damping) in enumerate(zip((0, 0, 1), PLANS, dampings, strict=True))
    ]
    weights = [0.3, 0.4, 0.2]
    got = aggregate(state, updates, weights, base, max_rank=64)
    for index, layer in enumerate(SHAPES):
        expected = explicit(state, base, updates, weights, layer, index)
        found = dense(METHOD.export(got)[layer.name]).double()
        assert torch.allclose(found, expected, atol=3e-6 * float(expected.norm())), layer.name


def test_an_update_without_change_moves_nothing_however_it_is_damped():
    old, state = versions()
    still = replace(update(0, 0, PLANS[0], zero_change(METHOD, old, PLANS[0])), damping=0.3)
    after = aggregate(state, [still], [0.8], {0: old}, max_rank=40)
    for layer in SHAPES:
        before, now = (dense(METHOD.export(s)[layer.name]).double() for s in (state, after))
        assert float((now - before).norm()) < 2e-6 * float(before.norm())


def test_all_that_fits_is_damped_where_there_is_no_basis():
    zero = METHOD.init(SHAPES, 3, None)
    fresh = update(0, 0, plan(2, 2), random_change(plan(2, 2), seed=1))
    damped = aggregate(zero, [replace(fresh, damping=0.5)], [1.0], max_rank=40)
    halved = aggregate(zero, [fresh], [0.5], max_rank=40)
    for layer in SHAPES:
        left, right = (dense(METHOD.export(s)[layer.name]) for s in (damped, halved))
        assert torch.allclose(left, right, atol=1e-6)


def test_mixing_discounts_all_or_damps_a_part():
    rule = StalenessRule("polynomial", exponent=1.0)
    whole, part = Mixing(rule, None, 0.5), Mixing(rule, None, 0.5, subspace=True)
    assert (whole.discount(3), whole.damping(3)) == (0.125, 1.0)
    assert (part.discount(3), part.damping(3)) == (0.5, 0.25)
