from dataclasses import replace

import numpy as np
import pytest

from fedsim.method import coupled
from fedsim.method.bundle import ClientMemory, Infeasible, Standing
from fedsim.method.catalogue import build_method
from fedsim.method.coupled import CommonRank, what_was_missed
from fedsim.method.messages import RankPlan
from fedsim.method.standing import stack_of, standing, with_merged
from fedsim.world.cost import output_half, whole_upload
from tests.cohorts import AMPLE, SHAPES, plan, prices

COSTS = prices()
LAYERS = len(SHAPES)


def seconds(costs, ranks, budget):
    spent = (
        8.0 * costs.bytes_down(ranks) / budget.download_bps + 8.0 * costs.bytes_up(ranks) / budget.upload_bps
    )
    return spent + costs.flops(ranks.total, ranks.trained) / budget.flops


@pytest.mark.parametrize("binding", ["bytes", "memory", "seconds"])
def test_the_common_rank_is_the_largest_that_fits(binding):
    five, six = plan(5, 5), plan(6, 6)
    budget = {
        "bytes": replace(AMPLE, download_bytes=(COSTS.bytes_down(five) + COSTS.bytes_down(six)) / 2),
        "memory": replace(
            AMPLE,
            memory_bytes=(
                COSTS.memory_bytes(five.total, five.trained) + COSTS.memory_bytes(six.total, six.trained)
            )
            / 2,
        ),
        "seconds": replace(AMPLE, seconds=(seconds(COSTS, five, AMPLE) + seconds(COSTS, six, AMPLE)) / 2),
    }[binding]
    assert CommonRank(64).allocate({}, [budget], COSTS, None) == [five]
    assert CommonRank(4).allocate({}, [budget], COSTS, None) == [plan(4, 4)]
    assert CommonRank(9, least=6).allocate({}, [budget], COSTS, None) == [Infeasible("no column")]


def test_a_device_without_room_for_the_base_is_told_so():
    poor = replace(AMPLE, memory_bytes=1.0)
    assert CommonRank(4).allocate({}, [poor], COSTS, None) == [Infeasible("base")]


def test_a_pruned_client_gets_no_more_than_is_left_of_it():
    known = Standing(ClientMemory(0.5, 3, rank=2), ())
    assert CommonRank(8).allocate({}, [AMPLE, AMPLE], COSTS, None, [known, Standing(None, ())]) == [
        plan(2, 2),
        plan(8, 8),
    ]
    assert CommonRank(8).replan({}, [AMPLE], COSTS, [(1,) * LAYERS], [known]) == [plan(2, 2)]


def test_a_new_plan_keeps_what_arrived_even_where_it_cannot_be_trained():
    three = COSTS.memory_bytes([6] * LAYERS, [3] * LAYERS)
    less = replace(AMPLE, memory_bytes=three, download_bytes=0.0)
    assert CommonRank(8).replan({}, [less], COSTS, [(6,) * LAYERS]) == [plan(6, 3)]
    gone = replace(AMPLE, memory_bytes=COSTS.base_memory)
    assert CommonRank(8).replan({}, [gone], COSTS, [(6,) * LAYERS]) == [Infeasible("memory")]


def test_flora_pays_the_missed_stacks_but_never_more_than_the_whole():
    spectrum = {layer.name: np.ones(9) for layer in SHAPES}
    memory = ClientMemory(0.0, 4)
    costs = replace(COSTS, dense_columns=np.array([7, 20, 20, 20]))
    assert what_was_missed(spectrum, costs, Standing(None, ())) == (7, 9, 9, 9)
    assert what_was_missed(spectrum, costs, Standing(memory, (2, 3, 30, 0))) == (2, 3, 9, 0)
    assert what_was_missed(spectrum, costs, Standing(memory, ())) == ()


def test_the_bytes_of_a_merged_stack_count_and_can_decline_a_client():
    method = build_method("flora", {"rank_cap": 2})
    costs = method.charge(COSTS)
    spectrum = {layer.name: np.ones(5) for layer in SHAPES}
    five = COSTS.download_bytes([5] * LAYERS)
    enough, short = (replace(AMPLE, download_bytes=bytes_) for bytes_ in (five, five - 1))
    granted, declined = method.allocate(spectrum, [enough, short], costs, None)
    assert granted == RankPlan((2,) * 4, (2,) * 4, (5,) * 4)
    assert declined == Infeasible("no column")
    assert costs.bytes_down(granted) == five
    assert costs.bytes_up(granted) == COSTS.upload_bytes([2] * LAYERS)


def test_fed_plora_downloads_every_module():
    method = build_method("fed_plora", {"rank_cap": 6})
    memory = replace(AMPLE, memory_bytes=COSTS.memory_bytes([2] * LAYERS, [2] * LAYERS))
    (granted,) = method.allocate({}, [memory], COSTS, None)
    assert granted == RankPlan((2,) * 4, (2,) * 4, (4,) * 4)
    assert COSTS.bytes_down(granted) == COSTS.download_bytes([6] * LAYERS)
    short = replace(memory, download_bytes=COSTS.download_bytes([6] * LAYERS) - 1)
    assert method.allocate({}, [short], COSTS, None) == [Infeasible("no column")]


def test_ffa_halves_the_bytes_and_saves_no_input():
    half = output_half(COSTS)
    widths = np.array([layer.d_out / (layer.d_in + layer.d_out) for layer in SHAPES])
    assert np.allclose(half.down_bytes, COSTS.down_bytes * widths)
    assert half.memory_bytes([1] * LAYERS, [1] * LAYERS) < COSTS.memory_bytes([1] * LAYERS, [1] * LAYERS)
    assert half.flops([1] * LAYERS, [1] * LAYERS) < COSTS.flops([1] * LAYERS, [1] * LAYERS)


def test_a_returned_tail_costs_its_upload_in_bytes_and_seconds():
    whole = whole_upload(COSTS)
    assert whole.bytes_up(plan(6, 2)) == COSTS.upload_bytes([6] * LAYERS)
    method, kept = build_method("fedhera", {"tail": "returned_gated"}), build_method("fedhera", {})
    assert method.charge(COSTS).bytes_up(plan(6, 2)) == whole.bytes_up(plan(6, 2))
    spectrum = {layer.name: 0.9 ** np.arange(12) for layer in SHAPES}
    slow = replace(AMPLE, upload_bps=1e5, seconds=seconds(COSTS, plan(12, 4), replace(AMPLE, upload_bps=1e5)))
    (returned,) = method.allocate(spectrum, [slow], method.charge(COSTS), 0)
    (frozen,) = kept.allocate(spectrum, [slow], COSTS, 0)
    assert sum(returned.total) < sum(frozen.total)
    assert seconds(whole, returned, slow) <= slow.seconds


def test_without_a_tail_only_trained_columns_are_sent():
    spectrum = {layer.name: 0.9 ** np.arange(12) for layer in SHAPES}
    tight = replace(AMPLE, memory_bytes=COSTS.memory_bytes([12] * LAYERS, [4] * LAYERS))
    (whole,) = build_method("fedhera", {}).allocate(spectrum, [tight], COSTS, None)
    (bare,) = build_method("fedhera", {"tail": "none"}).allocate(spectrum, [tight], COSTS, None)
    assert whole.trained == bare.trained == bare.total != whole.total


def test_what_a_client_missed_follows_from_what_was_aggregated():
    stacked = {1: stack_of((), [plan(3, 2), plan(1, 1)])}
    assert stacked[1] == (3,) * LAYERS
    stacked[2] = stack_of(stacked[1], [plan(4, 4)])
    assert standing(None, stacked, 2).missed == (7,) * LAYERS
    assert standing(ClientMemory(0.0, 1), stacked, 2).missed == (4,) * LAYERS
    assert standing(ClientMemory(0.0, 2), stacked, 2).missed == (0,) * LAYERS
    assert standing(None, {}, 0).missed == ()


def test_a_plan_with_merged_columns_keeps_them_and_does_not_grow():
    old = RankPlan((4, 4), (4, 4), (2, 0))
    assert with_merged(RankPlan((5, 4), (5, 1)), old) == RankPlan((4, 4), (4, 1), (2, 0))
    assert with_merged(plan(5, 5), plan(3, 3)) == plan(5, 5)
    with pytest.raises(ValueError, match="one merged rank per layer"):
        RankPlan((1, 1), (1, 1), (1,))


def test_whoever_cannot_take_part_is_worked_out_once(monkeypatch):
    opened = []
    original = coupled.open_budget

    def counted(*given):
        opened.append(given)
        return original(*given)

    monkeypatch.setattr(coupled, "open_budget", counted)
    costs, rule, poor = prices(), CommonRank(cap=8), replace(AMPLE, memory_bytes=1.0)
    answers = [rule.allocate({}, [poor, poor], costs, None) for _ in range(3)]
    assert answers == [[Infeasible("base")] * 2] * 3
    assert len(opened) == 1
    assert rule.allocate({}, [AMPLE], costs, None)[0].total == (8,) * LAYERS
    assert len(opened) == 2
