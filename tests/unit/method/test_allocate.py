import dataclasses
import math

import numpy as np
import pytest

from fedsim.method.allocate import AllocationRule, allocate, replan
from fedsim.method.bundle import Infeasible
from fedsim.method.coupled import CommonRank
from fedsim.method.messages import Budget, RankPlan
from fedsim.world.cost import Prices
from tests.cohorts import AMPLE, SHAPES, plan, prices

INF = math.inf
LAYERS = ("a", "b", "c")


def flat_prices(cost=(10, 10, 10), **changes) -> Prices:
    """Only bytes cost anything, unless a change says so."""
    zero = np.zeros(len(cost))
    values = {
        "layers": LAYERS[: len(cost)],
        "down_bytes": np.array(cost),
        "up_bytes": np.array(cost),
        "tail_memory": zero,
        "train_memory": zero,
        "group": np.arange(len(cost)),
        "group_memory": zero,
        "base_memory": 0.0,
        "tail_flops": zero,
        "train_flops": zero,
        "base_flops": 0.0,
    }
    return Prices(**{**values, **changes})


def spectrum(*sigmas):
    return {name: np.array(sigma, dtype=float) for name, sigma in zip(LAYERS, sigmas, strict=False)}


def budget(size=INF, *, memory=INF, seconds=INF, down=INF, up=INF, flops=1.0) -> Budget:
    return Budget(size, memory, seconds, down, up, flops)


def only(spectrum_, budget_, prices_, **rule):
    settings = {"initial_rank": 0, "train_reserve": 0.0, **rule}
    return allocate(spectrum_, [budget_], prices_, None, AllocationRule(**settings))[0]


def test_columns_are_bought_by_energy_per_byte():
    found = only(spectrum([3, 2, 1], [2.5, 0.1]), budget(30), flat_prices((10, 10)))
    assert found == RankPlan((2, 1), (2, 1))
    dear = only(spectrum([3, 2, 1], [2.5, 0.1]), budget(30), flat_prices((30, 10)))
    assert dear.total == (0, 2)


def test_skip_goes_on_past_a_column_that_does_not_fit_and_break_stops():
    sigma, costs = spectrum([10], [9.9], [0.1]), flat_prices((10, 25, 10))
    assert only(sigma, budget(20), costs).total == (1, 0, 1)
    assert only(sigma, budget(20), costs, overflow="break").total == (1, 0, 0)


def test_ties_go_to_the_smaller_name_wherever_it_stands():
    sigma = {"z": np.array([1.0]), "m": np.array([1.0])}
    costs = dataclasses.replace(flat_prices((10, 10)), layers=("z", "m"))
    assert only(sigma, budget(10), costs).total == (0, 1)


def test_columns_below_the_numerical_rank_of_their_layer_are_not_bought():
    found = only(spectrum([1.0, 1e-7], [1e-9, 9e-10]), budget(), flat_prices((10, 10)))
    assert found.total == (1, 2)


def test_normalised_energy_serves_a_weak_layer():
    sigma, costs = spectrum([10, 9], [0.2, 0.01]), flat_prices((10, 10))
    assert only(sigma, budget(20), costs).total == (2, 0)
    assert only(sigma, budget(20), costs, energy="layer_normalized").total == (1, 1)


def test_the_rank_cap_holds():
    assert only(spectrum([3, 2, 1], [3, 2, 1]), budget(), flat_prices((1, 1)), rank_cap=2).total == (2, 2)


def test_memory_bounds_training_and_the_rest_stays_frozen():
    costs = flat_prices(
        (10, 10), base_memory=100.0, tail_memory=np.array([1.0, 1.0]), train_memory=np.array([9.0, 9.0])
    )
    found = only(spectrum([4, 2], [3, 1]), budget(memory=124), costs)
    assert found == RankPlan((2, 2), (1, 1))


def test_the_reserve_keeps_memory_for_training():
    costs = flat_prices((10,), tail_memory=np.array([10.0]), train_memory=np.array([10.0]))
    sigma = spectrum(np.arange(20, 0, -1))
    greedy = only(sigma, budget(memory=100), costs)
    reserved = only(sigma, budget(memory=100), costs, train_reserve=0.5)
    assert greedy == RankPlan((9,), (1,))
    assert reserved == RankPlan((5,), (5,))


def test_a_group_is_charged_once():
    costs = flat_prices(
        (10, 10), group=np.array([0, 0]), group_memory=np.array([50.0]), train_memory=np.array([1.0, 1.0])
    )
    assert only(spectrum([2], [1]), budget(memory=52), costs).trained == (1, 1)
    apart = dataclasses.replace(costs, group=np.array([0, 1]), group_memory=np.array([50.0, 50.0]))
    assert only(spectrum([2], [1]), budget(memory=52), apart).trained == (1, 0)


def test_the_deadline_covers_both_links_and_all_work():
    """Base 2 s; each column 1 s down, 0.5 s tail, 0.25 s training, 2 s up."""
    costs = flat_prices((10,), base_flops=2.0, tail_flops=np.array([0.5]), train_flops=np.array([0.25]))
    sigma = spectrum([5, 4, 3, 2, 1])
    found = only(sigma, budget(seconds=2 + 3 * 1.5 + 2.25, down=80.0, up=40.0), costs)
    assert found == RankPlan((3,), (1,))
    assert only(sigma, budget(seconds=2 + 2 * 3.75, down=80.0, up=40.0), costs, coupled=True) == RankPlan(
        (2,), (2,)
    )


def test_a_device_that_cannot_hold_the_base_is_infeasible():
    costs = flat_prices((10,), base_memory=100.0, base_flops=5.0)
    assert only(spectrum([1]), budget(memory=99.9), costs) == Infeasible("base")
    assert only(spectrum([1]), budget(seconds=4.9), costs) == Infeasible("base")
    assert only(spectrum([1]), budget(seconds=INF, flops=0.0), costs) == RankPlan((1,), (1,))
    assert only(spectrum([1]), budget(seconds=9.0, flops=0.0), costs) == Infeasible("base")


def test_a_device_that_cannot_train_one_column_is_infeasible():
    costs = flat_prices((10,), train_memory=np.array([5.0]))
    assert only(spectrum([1]), budget(9), costs) == Infeasible("no column")
    assert only(spectrum([1]), budget(memory=4), costs) == Infeasible("no column")


def test_the_seed_is_the_first_column_that_can_be_trained():
    """The best layer can be received but not trained; without the seed nothing would train."""
    costs = flat_prices((10, 10), tail_memory=np.array([5.0, 5.0]), train_memory=np.array([100.0, 1.0]))
    found = only(spectrum([9, 8], [1]), budget(memory=11), costs)
    assert found == RankPlan((1, 1), (0, 1))


def test_version_zero_gets_the_largest_common_rank():
    rule = AllocationRule(initial_rank=4)
    plans = allocate({}, [budget(1000), budget(70), budget(31), budget(25)], flat_prices(), None, rule)
    assert plans == [plan(4, 4, 3), plan(2, 2, 3), plan(1, 1, 3), RankPlan((1, 1, 0), (1, 1, 0))]
    assert allocate({}, [budget(1000)], flat_prices(), 2, rule) == [plan(2, 2, 3)]


def test_without_an_initial_rank_version_zero_starts_as_clients_without_a_tail_do():
    zero = np.zeros(3)
    costs = flat_prices(train_memory=zero + 20.0, tail_memory=zero + 5.0, train_flops=zero + 1.0)
    cases = [budget(1000), budget(70, memory=200), budget(memory=160), budget(seconds=9.5), budget(25)]
    found = allocate({}, cases, costs, None, AllocationRule(rank_cap=5))
    assert found[:4] == CommonRank(5).allocate({}, cases[:4], costs, None)
    assert [each.trained for each in found] == [(5,) * 3, (2,) * 3, (2,) * 3, (3,) * 3, (1, 1, 0)]


def test_without_an_initial_rank_fresh_columns_fill_up_to_that_rank():
    costs = flat_prices((10, 10), train_memory=np.array([10.0, 10.0]))
    rule = AllocationRule(train_reserve=0.0)
    assert allocate(spectrum([2], [1]), [budget(60)], costs, None, rule)[0].total == (3, 3)
    assert allocate(spectrum([4, 3, 2, 1], [1]), [budget(60)], costs, None, rule)[0].total == (4, 2)


def test_what_is_left_buys_fresh_columns_lowest_rank_first():
    sigma = spectrum([5, 4, 3], [2], [])
    costs = flat_prices((10, 10, 10))
    rule = AllocationRule(initial_rank=2)
    sizes = [40, 50, 60, 70, 1000]
    totals = [allocate(sigma, [budget(size)], costs, None, rule)[0].total for size in sizes]
    assert totals == [(3, 1, 0), (3, 1, 1), (3, 2, 1), (3, 2, 2), (3, 2, 2)]


def test_fresh_columns_wait_until_their_layer_trains_all_its_energy():
    costs = flat_prices((10,), train_memory=np.array([10.0]))
    rule = AllocationRule(initial_rank=4, train_reserve=0.0)
    assert allocate(spectrum([2, 1]), [budget(memory=10)], costs, None, rule) == [RankPlan((2,), (1,))]
    assert allocate(spectrum([2, 1]), [budget(memory=30)], costs, None, rule) == [RankPlan((3,), (3,))]


@pytest.mark.parametrize("allocation", ["uniform", "random"])
def test_the_other_allocators_ignore_energy_and_obey_the_same_budgets(allocation):
    sigma = spectrum([100, 99, 98, 97], [1, 0.9, 0.8, 0.7], [1, 0.9, 0.8, 0.7])
    found = only(sigma, budget(60), flat_prices(), allocation=allocation)
    assert sum(found.total) == 6
    assert found == only(sigma, budget(60), flat_prices(), allocation=allocation)
    if allocation == "uniform":
        assert found.total == (2, 2, 2)
    else:
        seen = {
            only(sigma, budget(60), flat_prices(), allocation="random", seed=seed).total for seed in range(9)
        }
        assert len(seen) > 3


def test_equal_budgets_get_equal_plans_in_the_order_asked():
    sigma = {layer.name: 0.5 ** np.arange(10) for layer in SHAPES}
    small = dataclasses.replace(AMPLE, download_bytes=3000)
    plans = allocate(sigma, [small, AMPLE, small], prices(), None, AllocationRule(initial_rank=8))
    assert plans[0] == plans[2] != plans[1]
    assert plans[1].total == (10, 10, 10, 10)


def test_a_replan_keeps_what_has_arrived():
    sigma, costs = spectrum([4, 2], [3, 1]), flat_prices((10, 10))
    rule = AllocationRule(initial_rank=0)
    assert replan(sigma, [budget(10)], costs, [(0, 2)], None, rule) == [RankPlan((1, 2), (1, 2))]
    assert replan(sigma, [budget(0)], costs, [(0, 2)], None, rule) == [RankPlan((0, 2), (0, 2))]


def test_a_replan_trains_less_when_memory_falls_and_gives_up_when_it_must():
    costs = flat_prices((10, 10), tail_memory=np.array([5.0, 5.0]), train_memory=np.array([20.0, 20.0]))
    sigma, rule = spectrum([4, 2], [3, 1]), AllocationRule(initial_rank=0)
    assert replan(sigma, [budget(memory=60)], costs, [(2, 2)], None, rule) == [RankPlan((2, 2), (1, 1))]
    assert replan(sigma, [budget(memory=39)], costs, [(2, 2)], None, rule) == [Infeasible("no column")]
    assert replan(sigma, [budget(memory=19)], costs, [(2, 2)], None, rule) == [Infeasible("memory")]
    slow = dataclasses.replace(costs, tail_flops=np.array([1.0, 1.0]))
    assert replan(sigma, [budget(seconds=3)], slow, [(2, 2)], None, rule) == [Infeasible("time")]


def test_a_replan_at_version_zero_trains_the_fresh_columns_that_came():
    rule = AllocationRule(initial_rank=4)
    assert replan({}, [budget(0)], flat_prices(), [(3, 2, 2)], None, rule) == [RankPlan((3, 2, 2), (2, 2, 2))]
    assert replan({}, [budget(20)], flat_prices(), [(3, 2, 2)], None, rule) == [
        RankPlan((3, 3, 3), (3, 3, 3))
    ]
