"""Synchronous rounds, equal devices, full rank: rules that combine products equal the mean of updates."""

import pytest
import torch

from fedsim.lora.factors import Factors, dense
from fedsim.method.bundle import column_seed
from fedsim.method.catalogue import build_method
from fedsim.method.coupled import fleet_rank
from fedsim.method.messages import Update
from tests.cohorts import AMPLE, SHAPES, decaying_adapter, factors, prices

RANK = 10
WEIGHTS = (0.2, 0.5, 0.3)
EXACT = [
    ("fedhera", {"rank_cap": RANK, "initial_rank": 1}),
    ("fedhera", {"rank_cap": RANK, "initial_rank": 1, "coupled": True}),
    ("fedhera_paper", {"rank_cap": RANK, "initial_rank": 1}),
    ("fedhera_paper", {"rank_cap": RANK, "initial_rank": 1, "aggregation": "original"}),
    ("flexlora", {"rank_cap": RANK}),
    ("fedhl", {"rank_cap": RANK}),
    ("raflora", {"rank_cap": RANK}),
    ("flora", {"rank_cap": RANK}),
    ("ffa_lora", {"rank_cap": RANK}),
    ("fedex_lora", {"rank": RANK}),
]
BIASED = [("fedhomolora", {"rank": RANK}), ("hetlora", {"rank_cap": RANK, "weights": "samples"})]


def distance_to_fedavg(name, options):
    """Distance of one aggregation from the weighted mean of what clients did, relative to the latter."""
    method = build_method(name, options)
    state = method.init(SHAPES, 1, decaying_adapter(RANK))
    plan = method.allocate(method.spectrum(state), [AMPLE], method.charge(prices()), None)[0]
    assert set(plan.trained) == {RANK}
    updates, mean = [], {layer.name: torch.zeros(layer.d_out, layer.d_in) for layer in SHAPES}
    for number, weight in enumerate(WEIGHTS):
        payload = method.redistribute(state, plan, column_seed(state, number))
        change = {}
        for index, layer in enumerate(SHAPES):
            start = payload.prefix[layer.name]
            noise = factors(layer.d_in, layer.d_out, RANK, 100 * number + index)
            moves_a = 0.0 if payload.rule.trains == "b_only" else 0.1
            move = Factors(lora_a=moves_a * noise.lora_a, lora_b=0.1 * noise.lora_b)
            change[layer.name] = move
            after = (start.lora_b + move.lora_b) @ (start.lora_a + move.lora_a)
            scale = payload.scaling.get(layer.name, 1.0)
            mean[layer.name] += weight * scale * (after - dense(start))
        updates.append(Update(number, number, 0, plan, change, 1, 0.0))
    following = method.export(method.aggregate(state, updates, WEIGHTS, {0: state}))
    before = method.export(state)
    off, size = 0.0, 0.0
    full = {layer.name: min(layer.d_in, layer.d_out) for layer in SHAPES}
    for name_, expected in mean.items():
        target = dense(before[name_]) + expected
        u, sigma, vh = torch.linalg.svd(target)
        kept = RANK if cuts(name) else full[name_]
        target = u[:, :kept] @ torch.diag(sigma[:kept]) @ vh[:kept]
        off += float((dense(following[name_]) - target).square().sum())
        size += float(expected.square().sum())
    return (off / size) ** 0.5


def cuts(name):
    """Whether the server cuts its state at the rank cap."""
    return name in {"fedhera", "fedhera_paper", "flexlora", "fedhl", "raflora"}


@pytest.mark.parametrize(("name", "options"), EXACT)
def test_rules_on_products_equal_the_mean_of_updates(name, options):
    assert distance_to_fedavg(name, options) < 1e-4


@pytest.mark.parametrize(("name", "options"), BIASED)
def test_rules_that_average_factors_do_not(name, options):
    assert distance_to_fedavg(name, options) > 0.02


def test_homogeneous_methods_take_the_smallest_of_the_fleet_s_largest_ranks():
    costs = prices()
    column = costs.download_bytes([1] * len(SHAPES))
    rich, poor, unable = (AMPLE.__class__(column * n, 1e12, 1e12, 1e9, 1e9, 1e9) for n in (9.5, 3.5, 0.5))
    assert fleet_rank([rich, poor, unable], costs, 64) == 3
    method = build_method("fedhomolora", {}).for_fleet([rich, poor, unable], costs)
    state = method.init(SHAPES, 0, None)
    plans = method.allocate(method.spectrum(state), [rich, poor, unable], costs, None)
    assert [getattr(plan, "trained", None) for plan in plans] == [(3,) * 4, (3,) * 4, None]
    assert build_method("fedhomolora", {"rank": 5}).for_fleet is None
