"""Aggregation of factor pairs against cases computed by hand: one layer, 2 x 3, two clients."""

import pytest
import torch

from fedsim.lora.factors import dense
from fedsim.method import hetlora
from fedsim.method.bundle import column_seed
from fedsim.method.catalogue import build_method
from fedsim.method.messages import RankPlan
from tests.unit.method.tiny import SHAPES, answer, combine, pair, product, received

WEIGHTS = [0.25, 0.75]
ONE = pair([[2.0], [0.0]], [[1.0, 0.0, 0.0]])
TWO = pair([[0.0], [4.0]], [[0.0, 2.0, 0.0]])


def close(found, expected):
    assert torch.allclose(found.float(), torch.tensor(expected, dtype=torch.float32), atol=1e-5), found


def test_fedhomolora_averages_both_factors_and_not_their_product():
    method = build_method("fedhomolora", {"rank": 1})
    state = method.init(SHAPES, 0, None)
    after = combine(method, state, [answer(method, state, 0, ONE), answer(method, state, 1, TWO)], WEIGHTS)
    close(after.pair["q"].lora_b, [[0.5], [3.0]])
    close(after.pair["q"].lora_a, [[0.25, 1.5, 0.0]])
    close(product(method, after), [[0.125, 0.75, 0.0], [0.75, 4.5, 0.0]])


def test_fedex_adds_what_the_average_misses():
    method = build_method("fedex_lora", {"rank": 1})
    state = method.init(SHAPES, 0, None)
    after = combine(method, state, [answer(method, state, 0, ONE), answer(method, state, 1, TWO)], WEIGHTS)
    close(after.pair["q"].lora_b, [[0.5], [3.0]])
    close(product(method, after), [[0.5, 0.0, 0.0], [0.0, 6.0, 0.0]])  # .25 * B1 A1 + .75 * B2 A2
    payload = method.redistribute(after, RankPlan((1,), (1,)), 0)
    close(dense(payload.prefix["q"]) + dense(payload.merged["q"]), [[0.5, 0, 0], [0, 6.0, 0]])


def test_fedex_keeps_earlier_residuals():
    method = build_method("fedex_lora", {"rank": 1})
    state = method.init(SHAPES, 0, None)
    after = combine(method, state, [answer(method, state, 0, ONE), answer(method, state, 1, TWO)], WEIGHTS)
    still = received(method, after, RankPlan((1,), (1,)), 2)
    again = combine(method, after, [answer(method, after, 2, still)], [1.0])
    close(product(method, again), [[0.5, 0.0, 0.0], [0.0, 6.0, 0.0]])


def test_ffa_adds_changes_of_b_in_nested_slices_of_one_a():
    method = build_method("ffa_lora", {"rank_cap": 2})
    state = method.init(SHAPES, 0, None)
    a = state.pair["q"].lora_a
    wide = answer(method, state, 0, pair([[1.0, 2.0], [3.0, 4.0]], a.tolist()))
    thin = answer(method, state, 1, pair([[4.0], [0.0]], a[:1].tolist()))
    after = combine(method, state, [wide, thin], WEIGHTS)
    close(after.pair["q"].lora_b, [[0.25 + 3.0, 0.5], [0.75, 1.0]])
    assert torch.equal(after.pair["q"].lora_a, a)
    payload = method.redistribute(after, RankPlan((1,), (1,)), 0)
    assert payload.rule.trains == "b_only"


def test_hetlora_weighs_padded_factors_by_the_norm_of_their_product():
    method = build_method("hetlora", {"rank_cap": 2})
    state = method.init(SHAPES, 0, None)
    wide = pair([[3.0, 0.0], [0.0, 3.0]], [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])  # norm sqrt(18)
    thin = pair([[0.0], [18.0**0.5]], [[0.0, 0.0, 3.0]])  # norm 3 sqrt(18)
    updates = [answer(method, state, 0, wide), answer(method, state, 1, thin)]
    after = combine(method, state, updates, [0.9, 0.1])
    close(after.pair["q"].lora_b, [[0.75, 0.0], [0.75 * 18.0**0.5, 0.75]])
    close(after.pair["q"].lora_a, [[0.25, 0.0, 2.25], [0.0, 0.25, 0.0]])


def test_hetlora_falls_back_to_samples_where_every_product_is_zero():
    zero = {"q": pair([[0.0], [0.0]], [[1.0, 0.0, 0.0]])}
    assert hetlora.norm_weights([zero, zero], [0.2, 0.8]) == [0.2, 0.8]


def test_hetlora_prunes_a_client_whose_last_columns_lost_weight():
    method = build_method("hetlora", {"rank_cap": 4, "pruning": 0.5, "min_rank": 2})
    rows = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]
    adapter = {"q": pair([[4.0, 3.0, 0.0, 0.0], [0.0, 0.0, 2.0, 1.0]], rows)}
    state = method.init(SHAPES, 0, adapter)
    plan = RankPlan((2,), (2,))
    start = received(method, state, plan, 0)
    smaller = pair((start.lora_b * torch.tensor([1.0, 0.5])).tolist(), start.lora_a.tolist())
    larger = pair((start.lora_b * torch.tensor([1.0, 1.5])).tolist(), start.lora_a.tolist())
    updates = [answer(method, state, 0, smaller), answer(method, state, 1, larger)]
    assert method.prune(state, updates, {0: state}) == {0: 2}
    gone = build_method("hetlora", {"rank_cap": 4, "pruning": 0.5})
    assert gone.prune(state, updates, {0: state}) == {0: 1}
    assert method.redistribute(state, plan, 0).rule.penalty == pytest.approx(1e-3)


def test_fslora_adds_mean_changes_in_the_columns_of_each_sketch():
    method = build_method("fslora", {"rank_cap": 3, "server_rate": 0.5})
    state = method.init(SHAPES, 0, None)
    plan = RankPlan((1,), (1,))
    payload = method.redistribute(state, plan, column_seed(state, 0))
    assert payload.scaling == {"q": 3.0}
    before = state.pair["q"]
    start = payload.prefix["q"]
    (column,) = [k for k in range(3) if torch.equal(before.lora_a[k], start.lora_a[0])]
    update = answer(method, state, 0, pair([[2.0], [4.0]], (start.lora_a + 1.0).tolist()))
    after = combine(method, state, [update], [1.0]).pair["q"]
    close(after.lora_b[:, column], [1.0, 2.0])
    assert torch.allclose(after.lora_a[column], before.lora_a[column] + 0.5)
    others = [k for k in range(3) if k != column]
    assert torch.equal(after.lora_a[others], before.lora_a[others])
    sketches = {
        tuple(method.redistribute(state, plan, column_seed(state, number)).prefix["q"].lora_a[0].tolist())
        for number in range(20)
    }
    assert len(sketches) == 3


def test_fed_plora_averages_each_module_over_those_who_trained_it():
    method = build_method("fed_plora", {"rank_cap": 2})
    state = method.init(SHAPES, 0, None)
    before = state.pair["q"]
    whole = pair([[1.0, 2.0], [1.0, 2.0]], [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    single = pair([[5.0], [5.0]], [[0.0, 0.0, 4.0]])
    start = received(method, state, RankPlan((1,), (1,)), 1)
    mine = 0 if torch.equal(start.lora_a[0], before.lora_a[0]) else 1
    updates = [answer(method, state, 0, whole), answer(method, state, 1, single)]
    after = combine(method, state, updates, WEIGHTS).pair["q"]
    column = 0.25 * whole.lora_b[:, mine] + 0.75 * 5.0
    close(after.lora_b[:, mine], column.tolist())
    close(after.lora_b[:, 1 - mine], whole.lora_b[:, 1 - mine].tolist())
    alone = combine(method, state, updates[1:], [1.0]).pair["q"]
    assert torch.equal(alone.lora_a[1 - mine], before.lora_a[1 - mine])


def test_fed_plora_folds_what_it_does_not_train_into_the_base():
    method = build_method("fed_plora", {"rank_cap": 4})
    adapter = {"q": pair([[4.0, 1.0], [0.0, 2.0]], [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])}
    state = method.init(SHAPES, 0, adapter)
    payload = method.redistribute(state, RankPlan((1,), (1,), (3,)), column_seed(state, 7))
    assert (payload.prefix["q"].rank, payload.merged["q"].rank) == (1, 3)
    whole = dense(payload.prefix["q"]) + dense(payload.merged["q"])
    assert torch.allclose(whole, dense(adapter["q"]), atol=1e-5)
