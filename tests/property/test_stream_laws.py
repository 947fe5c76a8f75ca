"""Streams nest: at every column boundary, what has come is the greedy plan for that many bytes."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsim.method.allocate import AllocationRule, allocate, column_stream, offer, replan
from fedsim.method.messages import Budget, RankPlan
from tests.cohorts import AMPLE, prices
from tests.property.test_allocator_laws import (
    bytes_only,
    random_budget,
    random_prices,
    random_rule,
    random_spectrum,
)

COSTS = prices()
SIGMAS = st.lists(
    st.lists(st.floats(0.01, 10.0), min_size=1, max_size=8).map(lambda s: sorted(s, reverse=True)),
    min_size=len(COSTS.layers),
    max_size=len(COSTS.layers),
)
ORDERS = st.sampled_from(["water_filling", "uniform", "random"])


@settings(max_examples=100, deadline=None)
@given(SIGMAS, ORDERS, st.integers(0, 5))
def test_at_column_boundaries_each_prefix_is_the_greedy_plan_for_that_many_bytes(sigmas, allocation, seed):
    spectrum = {name: np.array(s) for name, s in zip(COSTS.layers, sigmas, strict=True)}
    rule = AllocationRule(allocation=allocation, overflow="break", initial_rank=0, seed=seed)
    (whole,) = allocate(spectrum, [AMPLE], COSTS, None, rule)
    stream = column_stream(offer(spectrum, COSTS, rule), whole)
    assert tuple(np.bincount(stream, minlength=len(sigmas)).tolist()) == whole.total
    ends = np.cumsum(COSTS.down_bytes[list(stream)])
    budgets = [Budget(float(end), 1e12, 1e12, 1e9, 1e9, 1e9) for end in ends]
    for j, plan in enumerate(allocate(spectrum, budgets, COSTS, None, rule), start=1):
        assert plan.total == tuple(np.bincount(stream[:j], minlength=len(sigmas)).tolist())


@settings(max_examples=60, deadline=None)
@given(SIGMAS, st.integers(1, 10))
def test_fresh_columns_come_last_and_nest_level_by_level(sigmas, floor):
    spectrum = {name: np.array(s) for name, s in zip(COSTS.layers, sigmas, strict=True)}
    rule = AllocationRule(overflow="break", initial_rank=floor)
    (whole,) = allocate(spectrum, [AMPLE], COSTS, None, rule)
    stream = column_stream(offer(spectrum, COSTS, rule), whole)
    assert tuple(np.bincount(stream, minlength=len(sigmas)).tolist()) == whole.total
    counts, known = np.zeros(len(sigmas), dtype=int), np.array([len(s) for s in sigmas])
    fresh = []
    for layer in stream:
        counts[layer] += 1
        fresh.append(bool(counts[layer] > known[layer]))
        if fresh[-1]:
            assert (counts >= np.minimum(known, counts.max() - 1)).all()
    assert fresh == sorted(fresh)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6))
def test_clients_planned_together_get_what_each_would_get_alone(seed, clients):
    rng = np.random.default_rng(seed)
    costs, rule = random_prices(rng), random_rule(rng)
    spectrum = random_spectrum(rng, costs.layers)
    (base,) = allocate(spectrum, [AMPLE], costs, None, rule)
    totals = base.total if isinstance(base, RankPlan) else (0,) * len(costs.layers)
    received = [tuple(int(rng.integers(0, total + 1)) for total in totals) for _ in range(clients)]
    budgets = [random_budget(rng) if rng.random() < 0.5 else AMPLE for _ in range(clients)]
    together = replan(spectrum, budgets, costs, received, None, rule)
    alone = [
        replan(spectrum, [budget], costs, [there], None, rule)[0]
        for budget, there in zip(budgets, received, strict=True)
    ]
    assert together == alone


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 5)), min_size=1, max_size=4),
    st.integers(0, 300),
    st.sampled_from(["skip", "break"]),
    st.integers(0, 10**6),
)
def test_the_vectorised_step_is_the_slow_one(layers, limit, overflow, seed):
    """Where only bytes bind, planning one client again walks its order exactly as the general rule does."""
    rng = np.random.default_rng(seed)
    names = tuple(f"l{index}" for index in range(len(layers)))
    spectrum = {
        n: np.sort(rng.uniform(0.1, 2, count))[::-1] for n, (_, count) in zip(names, layers, strict=True)
    }
    costs = bytes_only([cost for cost, _ in layers], names)
    received = tuple(int(rng.integers(0, count + 1)) for _, count in layers)
    rule = AllocationRule(overflow=overflow, initial_rank=0)
    ample = Budget(limit, 1e9, 1e9, 1e9, 1e9, 1e9)
    tight = Budget(limit, 0.0, 1e9, 1e9, 1e9, 1e9)  # memory costs nothing here, and the screen says no
    fast, slow = (replan(spectrum, [budget], costs, [received], None, rule) for budget in (ample, tight))
    assert fast == slow
