"""Plans looked up one at a time equal those that are made for a whole cohort, and those of the exact walk."""

from dataclasses import replace

import numpy as np
import pytest

from fedsim.method.allocate import AllocationRule, Offered, allocate, offer, plan_client
from fedsim.method.ledger import open_ledger
from fedsim.method.messages import Budget
from fedsim.world.cost import Workload, roofline
from fedsim.world.shape import LayerShape, ModelShape

LAYERS = (LayerShape("a", 24, 40, "x"), LayerShape("b", 24, 24, "x"), LayerShape("c", 64, 24, "y"))
PRICES = roofline(ModelShape("toy", LAYERS, 1000, 900, 1, 24, 24, 2, 50), Workload(2, 8, 3, "bfloat16"))
PLENTY = Budget(1e4, 1e9, 1e9, 1e6, 1e6, 1e9)


def spectrum(seed):
    rng = np.random.default_rng(seed)
    return {layer.name: np.sort(rng.uniform(0.1, 1.0, 12))[::-1] for layer in LAYERS}


@pytest.mark.parametrize("overflow", ["skip", "break"])
@pytest.mark.parametrize("seed", range(3))
def test_a_look_up_is_what_the_walk_buys(overflow, seed):
    rule = AllocationRule(overflow=overflow, initial_rank=4, rank_cap=12)
    version, rng = spectrum(seed), np.random.default_rng(seed)
    offered, order = Offered.of(version, PRICES, rule), offer(version, PRICES, rule)
    nothing, looked_up = np.zeros(3, dtype=np.int64), 0
    for size in [0.0, 40.0, *rng.uniform(50, 7000, 60).tolist(), 1e9]:
        budget = replace(PLENTY, download_bytes=size)
        exact = plan_client(order, open_ledger(budget, PRICES), nothing, 4, rule)
        assert allocate(version, [budget], PRICES, None, rule, offered) == [exact]
        found = offered.table.plan(budget)
        looked_up += found is not None
        assert found in (None, exact)
    assert looked_up > 50


def test_who_may_lack_memory_or_time_is_not_looked_up():
    table = Offered.of(spectrum(0), PRICES, AllocationRule(initial_rank=4, rank_cap=12)).table
    assert table.plan(PLENTY) is not None
    for poor in (
        {"memory_bytes": PRICES.base_memory},
        {"seconds": 1e-3},
        {"upload_bps": 0.0},
        {"flops": 1e-4},
    ):
        assert table.plan(replace(PLENTY, **poor)) is None
