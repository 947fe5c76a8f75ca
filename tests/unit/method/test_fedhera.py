import numpy as np
import pytest
import torch

from fedsim.errors import ScenarioError
from fedsim.lora.codec import roundtrip_adapter
from fedsim.lora.factors import dense
from fedsim.method.fedhera import FedHeraOptions, assemble, build
from fedsim.method.messages import RankPlan
from fedsim.wire import WIRE_DTYPES
from tests.cohorts import (
    AMPLE,
    SHAPES,
    decaying_adapter,
    factors,
    plan,
    prices,
    random_change,
    update,
    zero_change,
)
from tests.published_rule import published_original, relative_move, upload_of


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank_cp": 8}, "rank_cp: unknown option; did you mean 'rank_cap'"),
        ({"zzz": 8}, "known are allocation, beta"),
        ({"rank_cap": 0}, "rank_cap: expected an integer at least 1, got 0"),
        ({"rank_cap": 8.5}, "expected an integer"),
        ({"rank_cap": True}, "expected an integer"),
        ({"train_reserve": 1.5}, "train_reserve: expected a number from 0 to 1, got 1.5"),
        ({"beta": "high"}, "expected a number"),
        ({"tail_warmup": float("nan")}, "expected a number"),
        ({"overflow": "stop"}, "expected one of skip, break, got 'stop'"),
        ({"coupled": 1}, "expected true or false, got 1"),
        ({"allocation": ["uniform"]}, "expected one of"),
        ({"rank_cap": 4, "initial_rank": 8}, r"initial_rank: expected at most rank_cap \(4\), got 8"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ScenarioError, match=message):
        build(options)


def test_options_reach_their_parts():
    method = build({"tail_warmup": 0, "rank_cap": 3, "initial_rank": 2})
    assert method.gate(None, 0) == 1.0
    state = method.init(SHAPES, 1, decaying_adapter())
    assert all(len(sigma) == 3 for sigma in method.spectrum(state).values())
    zero = method.init(SHAPES, 1, None)
    assert method.allocate(method.spectrum(zero), [AMPLE], prices(), None) == [plan(2, 2)]


def test_an_adapter_survives_init_and_export():
    adapter = decaying_adapter()
    method = assemble(FedHeraOptions())
    exported = method.export(method.init(SHAPES, 1, adapter))
    assert list(exported) == [layer.name for layer in SHAPES]
    for name, pair in adapter.items():
        assert torch.allclose(dense(exported[name]), dense(pair), atol=1e-5)


def test_an_adapter_of_another_model_is_refused():
    method = assemble(FedHeraOptions())
    with pytest.raises(ScenarioError, match="got 'other'"):
        method.init(SHAPES, 1, {"other": factors(4, 4, 1, seed=1)})
    with pytest.raises(ScenarioError, match="expected 24 x 24, got 4 x 5"):
        method.init(SHAPES, 1, {SHAPES[0].name: factors(5, 4, 1, seed=1)})


def test_prefix_and_tail_together_are_the_best_approximation_of_their_rank():
    method = assemble(FedHeraOptions())
    adapter = decaying_adapter()
    payload = method.redistribute(method.init(SHAPES, 1, adapter), plan(6, 2), seed=9)
    for name, pair in adapter.items():
        assert (payload.prefix[name].rank, payload.tail[name].rank) == (2, 4)
        sigma = torch.linalg.svdvals(dense(pair).double())
        received = dense(payload.prefix[name]) + dense(payload.tail[name])
        error = float((dense(pair) - received).double().square().sum())
        assert error == pytest.approx(float(sigma[6:].square().sum()), rel=1e-3)


def test_fresh_columns_change_nothing_and_all_clients_share_them():
    method = assemble(FedHeraOptions())
    state = method.init(SHAPES, 7, None)
    few, many = (method.redistribute(state, plan(rank, rank), seed) for rank, seed in ((2, 1), (5, 2)))
    for layer in SHAPES:
        small, large = few.prefix[layer.name], many.prefix[layer.name]
        assert not dense(large).any()
        assert torch.equal(large.lora_a[:2], small.lora_a)
        assert float(large.lora_a.std()) == pytest.approx(layer.d_in**-0.5, rel=0.35)
    other = method.redistribute(method.init(SHAPES, 8, None), plan(2, 2), 1)
    assert not torch.equal(other.prefix[SHAPES[0].name].lora_a, few.prefix[SHAPES[0].name].lora_a)


def test_a_layer_without_columns_can_come_back():
    method = assemble(FedHeraOptions(initial_rank=2))
    adapter = decaying_adapter()
    del adapter[SHAPES[1].name]
    state = method.init(SHAPES, 1, adapter)
    assert len(method.spectrum(state)[SHAPES[1].name]) == 0
    (granted,) = method.allocate(method.spectrum(state), [AMPLE], prices(), None)
    assert isinstance(granted, RankPlan)
    assert granted.trained[1] == 2
    after = method.aggregate(state, [update(0, 0, granted, random_change(granted, seed=5))], [1.0])
    assert len(method.spectrum(after)[SHAPES[1].name]) == 2


RANKS = [RankPlan((8,) * 4, (2,) * 4), RankPlan((6,) * 4, (4,) * 4), RankPlan((4,) * 4, (1,) * 4)]
WEIGHTS = [0.5, 0.3, 0.2]


def product(method, state):
    return {name: dense(pair).double() for name, pair in method.export(state).items()}


@pytest.mark.parametrize("dtype", WIRE_DTYPES)
def test_learning_rate_zero_moves_nothing_under_any_number_format(dtype):
    """Five rounds from a non-zero adapter; uploads are changes as the wire rounds them, the gate is on."""
    method = assemble(FedHeraOptions(rank_cap=12, tail_warmup=2.0))
    state = method.init(SHAPES, 1, decaying_adapter())
    before = product(method, state)
    for version in range(5):
        assert method.gate(None, version) < 1.0
        updates = [
            update(i, version, ranks, roundtrip_adapter(zero_change(method, state, ranks), dtype))
            for i, ranks in enumerate(RANKS)
        ]
        state = method.aggregate(state, updates, WEIGHTS)
        assert relative_move(before, product(method, state)) < 1e-5
    assert state.version == 5


def test_the_published_rule_moves_the_model_at_learning_rate_zero():
    method = assemble(FedHeraOptions(rank_cap=12, tail_warmup=2.0))
    state = method.init(SHAPES, 1, decaying_adapter())
    before = product(method, state)
    for version in range(5):
        gate = method.gate(None, version)
        uploads = [upload_of(method.redistribute(state, ranks, 0), gate) for ranks in RANKS]
        state = published_original(state, uploads, WEIGHTS, max_rank=12)
        assert relative_move(before, product(method, state)) > 1e-2


def test_alignment_tells_a_client_that_pulls_the_other_way():
    method = assemble(FedHeraOptions())
    state = method.init(SHAPES, 1, decaying_adapter())
    same = random_change(plan(3, 3), seed=1, scale=0.01)
    against = {n: type(c)(-c.lora_a, -c.lora_b) for n, c in same.items()}
    updates = [update(i, 0, plan(3, 3), c) for i, c in enumerate((same, same, against))]
    updates.append(update(3, 0, plan(3, 3), zero_change(method, state, plan(3, 3))))
    scores = method.align(state, updates, [0.3, 0.3, 0.2, 0.2])
    assert scores[0] == scores[1] == pytest.approx(1.0, abs=0.01)
    assert scores[2] == pytest.approx(-1.0, abs=0.01)
    assert scores[3] == 0.0
    assert method.align(state, updates[::-1], [0.2, 0.2, 0.3, 0.3]) == scores


def test_the_spectrum_is_plain_numbers():
    method = assemble(FedHeraOptions())
    spectrum = method.spectrum(method.init(SHAPES, 1, decaying_adapter()))
    for sigma in spectrum.values():
        assert sigma.dtype == np.float64
        assert (np.diff(sigma) <= 0).all()
