"""Aggregation of decomposed adapters against cases computed by hand: one layer, 2 x 3, two clients."""

import pytest
import torch

from fedsim.errors import ScenarioError
from fedsim.lora.factors import dense
from fedsim.method import fedhl
from fedsim.method.bundle import column_seed
from fedsim.method.catalogue import build_method
from fedsim.method.messages import RankPlan, Update
from fedsim.method.options import Option
from tests.unit.method.tiny import SHAPES, answer, combine, pair, product, received

WEIGHTS = [0.25, 0.75]
START = {"q": pair([[4.0, 0.0], [0.0, 1.0]], [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])}
WIDE = pair([[2.0, 0.0], [0.0, 1.0]], [[2.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # diag(4) and a new direction
THIN = pair([[2.0], [2.0]], [[1.0, 0.0, 0.0]])


def after_two(name, options):
    method = build_method(name, options)
    state = method.init(SHAPES, 0, START)
    updates = [answer(method, state, 0, WIDE), answer(method, state, 1, THIN)]
    return product(method, combine(method, state, updates, WEIGHTS))


def close(found, expected):
    assert torch.allclose(found.float(), torch.tensor(expected, dtype=torch.float32), atol=1e-5), found


MEAN = [[0.25 * 4 + 0.75 * 2, 0.0, 0.0], [0.75 * 2, 0.0, 0.25]]


def test_flexlora_averages_whole_adapters():
    close(after_two("flexlora", {}), MEAN)


def test_fedhl_adds_changes_and_so_keeps_what_was_cut_off():
    close(after_two("fedhl", {}), [MEAN[0], [1.5, 0.75, 0.25]])


def test_fedhl_by_error_gives_weight_to_those_without_truncation():
    method = build_method("fedhl", {"weights": "error"})
    state = method.init(SHAPES, 0, START)
    updates = [answer(method, state, 0, WIDE), answer(method, state, 1, THIN)]
    whole, cut = fedhl.error_weights(updates, WEIGHTS, {0: state})
    assert fedhl.truncation_error(state, updates[1]) == pytest.approx(1.0)
    assert whole == pytest.approx(1e6 / (1e6 + 1 / (1 + 1e-6)))
    assert cut == pytest.approx(1.0 / (1e6 + 1.0), rel=1e-5)


def test_raflora_averages_the_second_level_over_its_one_client():
    close(after_two("raflora", {}), [[2.5, 0.0, 0.0], [1.5, 0.0, 1.0]])


def test_raflora_ignores_columns_above_the_last_whole_level():
    close(after_two("raflora", {"level_size": 2, "uncovered": "drop"}), [[4.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


def test_flora_stacks_weighted_updates_on_what_was_merged():
    method = build_method("flora", {})
    state = method.init(SHAPES, 0, START)
    updates = [answer(method, state, 0, WIDE), answer(method, state, 1, THIN)]
    after = combine(method, state, updates, WEIGHTS)
    close(product(method, after), [[4.0 + 2.5, 0.0, 0.0], [1.5, 1.0, 0.25]])
    payload = method.redistribute(after, RankPlan((1,), (1,)), column_seed(after, 5))
    assert float(payload.prefix["q"].lora_b.abs().max()) == 0.0
    close(dense(payload.merged["q"]), product(method, after).tolist())
    other = method.redistribute(after, RankPlan((1,), (1,)), column_seed(after, 6))
    assert not torch.equal(other.prefix["q"].lora_a, payload.prefix["q"].lora_a)


def paper_update(method, state, number, gate):
    """A client that received two columns, changed nothing and returns its tail through its gate."""
    plan = RankPlan((2,), (1,))
    payload = method.redistribute(state, plan, column_seed(state, number))
    root = gate**0.5 - 1.0 if payload.rule.tail == "returned_gated" else 0.0
    tail = payload.tail["q"]
    zero = torch.zeros_like(payload.prefix["q"].lora_a), torch.zeros_like(payload.prefix["q"].lora_b)
    change = type(tail)(
        lora_a=torch.cat([zero[0], tail.lora_a * root]), lora_b=torch.cat([zero[1], tail.lora_b * root], 1)
    )
    return Update(number, number, 0, plan, {"q": change}, 1, 0.0)


@pytest.mark.parametrize("rule", ["original", "unbiased"])
def test_the_published_rules_multiply_the_tail_by_its_gate(rule):
    method = build_method("fedhera_paper", {"aggregation": rule})
    state = method.init(SHAPES, 0, START)
    updates = [paper_update(method, state, 0, 0.36), paper_update(method, state, 1, 0.36)]
    close(product(method, combine(method, state, updates, WEIGHTS)), [[4.0, 0.0, 0.0], [0.0, 0.36, 0.0]])


def test_the_published_scale_divides_by_the_received_rank():
    method = build_method("fedhera_paper", {})
    state = method.init(SHAPES, 0, START)
    payload = method.redistribute(state, RankPlan((2,), (1,)), 0)
    assert payload.scaling == {"q": 8.0}
    close(8.0 * (dense(payload.prefix["q"]) + dense(payload.tail["q"])), dense(START["q"]).tolist())
    doubled = received(method, state, RankPlan((2,), (1,)), 0)
    change = {"q": type(doubled)(lora_a=torch.zeros(2, 3), lora_b=torch.zeros(2, 2))}
    change["q"].lora_b[:, 0] = doubled.lora_b[:, 0]
    update = Update(0, 0, 0, RankPlan((2,), (1,)), change, 1, 0.0)
    close(product(method, combine(method, state, [update], [1.0])), [[8.0, 0, 0], [0, 1.0, 0]])


def test_the_published_score_compares_whole_adapters():
    method = build_method("fedhera_paper", {"gate_at_upload": False})
    state = method.init(SHAPES, 0, START)
    still = [paper_update(method, state, number, 1.0) for number in (0, 1)]
    scores = method.align(state, still, WEIGHTS, {0: state})
    assert scores == {0: pytest.approx(1.0), 1: pytest.approx(1.0)}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("flexlora", {"rank": 4}),
        ("fedhl", {"weights": "norm"}),
        ("raflora", {"uncovered": "zero"}),
        ("fedhera_paper", {"aggregation": "mean"}),
        ("hetlora", {"pruning": 2}),
        ("fslora", {"server_rate": -1}),
        ("fedhomolora", {"rank": 0}),
    ],
)
def test_wrong_options_are_refused_in_the_method_s_name(name, options):
    with pytest.raises(ScenarioError, match=f"method {name}: "):
        build_method(name, options)


def test_options_say_what_they_take():
    assert str(Option("choice", choices=("a", "b"))) == "one of a, b"
