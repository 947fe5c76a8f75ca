"""The local loop."""

from dataclasses import replace

import pytest
import torch

from fedsim.errors import TrainingError
from fedsim.learn import cohort
from fedsim.learn.encode import encode
from fedsim.learn.executors.frames import pack_request, unpack_request
from fedsim.learn.stacked import StackedAdam
from fedsim.learn.train import LocalRun, TrainingSettings
from fedsim.lora.factors import Factors, adapter_norm, columns
from fedsim.method.bundle import LocalRule, Payload
from tests.unit.learn.toy import random_adapter, same

SETTINGS = TrainingSettings(batch_size=4, max_length=64)


@pytest.fixture
def payload(slotted):
    adapter = random_adapter(slotted[2], [4, 3, 0, 2], scale=0.05)
    return Payload(
        prefix={name: columns(factors, 0, 2) for name, factors in adapter.items()},
        tail={name: columns(factors, 2, factors.rank) for name, factors in adapter.items()},
    )


@pytest.fixture
def shard(slotted, task):
    return encode(slotted[0].tokenizer, task.shard(0), 64)


def train(slotted, payload, shard, *, steps=3, learning_rate=1e-2, gate=0.5, seed=1):
    run = LocalRun(steps=steps, learning_rate=learning_rate, gate=gate, seed=seed)
    return cohort.train_client(slotted[1], payload, shard, run=run, settings=SETTINGS, pad_id=0)


def test_learning_rate_zero_changes_nothing_by_one_bit(slotted, payload, shard):
    trained = train(slotted, payload, shard, learning_rate=0.0)
    assert trained.change.keys() == {name for name, factors in payload.prefix.items() if factors.rank}
    assert adapter_norm(trained.change) == 0.0
    assert all(not f.lora_a.any() and not f.lora_b.any() for f in trained.change.values())
    assert trained.loss > 0.1


def test_training_is_deterministic_and_follows_its_seed(slotted, payload, shard):
    first, again = train(slotted, payload, shard), train(slotted, payload, shard)
    assert same(first.change, again.change)
    assert first.loss == again.loss
    assert not same(first.change, train(slotted, payload, shard, seed=2).change)


def test_the_change_has_the_ranks_of_the_prefix_and_every_factor_moves(slotted, payload, shard):
    trained = train(slotted, payload, shard)
    for name, change in trained.change.items():
        assert change.rank == payload.prefix[name].rank
        assert change.lora_a.any()
        assert change.lora_b.any()


def test_training_lowers_the_loss_on_its_shard(slotted, payload, shard):
    trained = train(slotted, payload, shard, steps=25)
    moved = {
        name: Factors(
            lora_a=f.lora_a + payload.prefix[name].lora_a, lora_b=f.lora_b + payload.prefix[name].lora_b
        )
        for name, f in trained.change.items()
    }
    later = train(slotted, Payload(moved, payload.tail), shard, learning_rate=0.0)
    assert later.loss < 0.8 * train(slotted, payload, shard, learning_rate=0.0).loss


def test_the_gate_weighs_the_tail(slotted, payload, shard):
    losses = {gate: train(slotted, payload, shard, steps=1, gate=gate).loss for gate in (0.0, 0.5, 1.0)}
    assert len(set(losses.values())) == 3


def test_only_the_prefix_has_gradients_and_optimizer_state(slotted, payload, shard, monkeypatch):
    seen = []

    class Spy(StackedAdam):
        def step(self):
            seen.extend((self._gradient, self._mean, self._square))
            super().step()

    monkeypatch.setattr(cohort, "StackedAdam", Spy)
    train(slotted, payload, shard, steps=1)
    moving = sum(f.lora_a.numel() + f.lora_b.numel() for f in payload.prefix.values())
    assert [state.numel() for state in seen] == [moving] * 3


def test_non_finite_values_are_a_training_error(slotted, payload, shard):
    name = next(iter(payload.prefix))
    broken = Factors(lora_a=payload.prefix[name].lora_a * torch.inf, lora_b=payload.prefix[name].lora_b)
    with pytest.raises(TrainingError, match="non-finite loss at step 1 of 3"):
        train(slotted, Payload({**payload.prefix, name: broken}, payload.tail), shard)
    with pytest.raises(TrainingError, match="non-finite"):
        train(slotted, payload, shard, learning_rate=float("inf"))


def test_nothing_to_train_on_or_nothing_to_train_is_a_training_error(slotted, payload, shard):
    with pytest.raises(TrainingError, match="at least one example"):
        train(slotted, payload, [])
    with pytest.raises(TrainingError, match="at least one column"):
        train(slotted, Payload({}, payload.tail), shard)


def with_rule(payload, **changes):
    return replace(payload, rule=LocalRule(**changes))


def test_training_b_alone_leaves_a_where_it_is(slotted, payload, shard):
    trained = train(slotted, with_rule(payload, trains="b_only"), shard)
    assert all(not change.lora_a.any() for change in trained.change.values())
    assert any(change.lora_b.any() for change in trained.change.values())


def test_a_penalty_shrinks_the_last_columns_and_is_not_in_the_loss(slotted, payload, shard):
    plain = train(slotted, payload, shard)
    rule = {"penalty": 1e3, "penalty_from": 0.5}
    pressed = train(slotted, with_rule(payload, **rule), shard, steps=1)
    assert pressed.loss == train(slotted, payload, shard, steps=1).loss
    held = train(slotted, with_rule(payload, **rule), shard)

    def last(trained):
        ends = [
            (start.lora_b + trained.change[name].lora_b)[:, start.rank // 2 :]
            for name, start in payload.prefix.items()
            if start.rank
        ]
        return sum(float(end.square().sum()) for end in ends)

    assert last(held) < last(plain)


def test_a_penalty_on_columns_of_zeros_is_finite(slotted, payload, shard):
    zeros = {
        name: Factors(lora_a=pair.lora_a, lora_b=torch.zeros_like(pair.lora_b))
        for name, pair in payload.prefix.items()
    }
    rule = LocalRule(penalty=1.0, penalty_from=0.5)
    trained = train(slotted, replace(payload, prefix=zeros, rule=rule), shard)
    assert adapter_norm(trained.change) >= 0.0
    assert any(change.lora_b.any() for change in trained.change.values())


@pytest.mark.parametrize(("rule", "scale"), [("returned", 0.0), ("returned_gated", 0.25**0.5 - 1.0)])
def test_a_returned_tail_comes_back_as_received_or_through_its_gate(slotted, payload, shard, rule, scale):
    trained = train(slotted, with_rule(payload, tail=rule), shard, gate=0.25)
    for name, tail in payload.tail.items():
        prefix = payload.prefix[name].rank
        if prefix + tail.rank:
            change = trained.change[name]
            assert change.rank == prefix + tail.rank
            assert torch.allclose(change.lora_b[:, prefix:], tail.lora_b * scale)
            assert torch.allclose(change.lora_a[prefix:], tail.lora_a * scale)


def test_scaling_and_merged_columns_are_in_the_forward_pass(slotted, payload, shard):
    base = train(slotted, payload, shard, steps=1, gate=1.0).loss
    half = {
        name: Factors(lora_a=pair.lora_a, lora_b=pair.lora_b / 2) for name, pair in payload.prefix.items()
    }
    half_tail = {
        name: Factors(lora_a=pair.lora_a, lora_b=pair.lora_b / 2) for name, pair in payload.tail.items()
    }
    doubled = Payload(half, half_tail, scaling=dict.fromkeys(half, 2.0))
    assert train(slotted, doubled, shard, steps=1, gate=1.0).loss == pytest.approx(base, rel=1e-5)
    merged = Payload(payload.prefix, {}, merged=payload.tail)
    assert train(slotted, merged, shard, steps=1, gate=0.0).loss == pytest.approx(base, rel=1e-5)
    bare = Payload(payload.prefix, {})
    assert train(slotted, bare, shard, steps=1).loss != pytest.approx(base, rel=1e-5)


def test_a_payload_survives_the_frames(slotted, payload):
    merged = random_adapter(slotted[2], [2])
    rule = LocalRule("b_only", 0.1, 0.9, "returned")
    whole = replace(payload, merged=merged, scaling={"q": 1 / 3}, rule=rule)
    client, found, run = unpack_request(pack_request(3, whole, LocalRun(1, 0.1, 0.5, 7)))
    assert (client, run) == (3, LocalRun(1, 0.1, 0.5, 7))
    assert (found.scaling, found.rule) == (whole.scaling, whole.rule)
    assert same(found.merged, merged)
