"""Clients that share a pass are trained as each would be alone; who shares one is a pure function."""

import functools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

SETTINGS = settings(max_examples=8, deadline=None)


@functools.cache
def slot():
    import torch

    from tests.unit.learn.tiny import tiny_slot

    torch.set_num_threads(1)
    return tiny_slot()


RANKS = st.lists(st.integers(0, 4), min_size=2, max_size=4)
RULES = st.fixed_dictionaries(
    {
        "trains": st.sampled_from(["both", "b_only"]),
        "penalty": st.sampled_from([0.0, 0.5]),
        "penalty_from": st.sampled_from([0.0, 0.5, 0.9]),
        "tail": st.sampled_from(["kept", "returned", "returned_gated"]),
    }
)
MEMBERS = st.fixed_dictionaries(
    {
        "trained": RANKS.filter(any),
        "tail": RANKS,
        "merged": RANKS,
        "scale": st.sampled_from([1.0, 0.5]),
        "gate": st.sampled_from([0.0, 0.3, 1.0]),
        "rate": st.sampled_from([0.0, 1e-3, 3e-2]),
        "steps": st.integers(1, 4),
        "lengths": st.lists(st.integers(2, 12), min_size=1, max_size=5),
        "rule": RULES,
    }
)


def member(seed, drawn):
    from fedsim.learn.cohort import Member
    from fedsim.learn.train import LocalRun
    from fedsim.method.bundle import LocalRule, Payload
    from tests.unit.learn import tiny

    payload = Payload(
        prefix=tiny.adapter(slot(), drawn["trained"], 3 * seed),
        tail=tiny.adapter(slot(), drawn["tail"], 3 * seed + 1),
        merged=tiny.adapter(slot(), drawn["merged"], 3 * seed + 2),
        scaling=dict.fromkeys(tiny.LAYERS[:2], drawn["scale"]),
        rule=LocalRule(**drawn["rule"]),
    )
    run = LocalRun(drawn["steps"], drawn["rate"], drawn["gate"], seed)
    return Member(payload, tiny.shard(drawn["lengths"], seed), run)


def alone(one, training):
    from tests.peft_training import train_with_peft

    return train_with_peft(slot(), one.payload, one.shard, run=one.run, settings=training, pad_id=0)


@SETTINGS
@given(st.lists(MEMBERS, min_size=1, max_size=5))
def test_a_client_of_a_cohort_is_trained_as_if_it_were_alone(drawn):
    import torch

    from fedsim.learn.cohort import train_cohort
    from fedsim.learn.train import TrainingSettings

    training = TrainingSettings(batch_size=3)
    members = [member(seed, one) for seed, one in enumerate(drawn)]
    for one, found in zip(members, train_cohort(slot(), members, settings=training, pad_id=0), strict=True):
        expected = alone(one, training)
        assert found.loss == pytest.approx(expected.loss, abs=1e-5)
        assert list(found.change) == list(expected.change)
        near = 1e-5 + 1e-3 * one.run.learning_rate * one.run.steps
        for name, change in expected.change.items():
            assert torch.allclose(found.change[name].lora_a, change.lora_a, rtol=1e-4, atol=near)
            assert torch.allclose(found.change[name].lora_b, change.lora_b, rtol=1e-4, atol=near)


def requests(work):
    from fedsim.method.messages import Assignment, RankPlan, TrainRequest

    plans = [RankPlan((total + 1,), (1,)) for _, total in work]
    return [
        TrainRequest(Assignment(number, number, 0, plan, steps, 0, 1.0, 0.1, 0.0, math.inf), plan)
        for number, ((steps, _), plan) in enumerate(zip(work, plans, strict=True))
    ]


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 3)), max_size=40), st.integers(1, 9), st.data())
def test_whole_groups_stay_groups_whatever_else_is_asked_for(work, limit, data):
    from fedsim.learn.groups import groups, whole_groups

    asked = requests(work)
    found = groups(asked, limit)
    assert sorted(position for group in found for position in group) == list(range(len(asked)))
    assert len(found) == math.ceil(len(asked) / limit)
    assert all(len(asked) // len(found) <= len(group) <= limit for group in found)
    wanted = data.draw(st.sets(st.sampled_from(range(len(asked))))) if asked else set()
    again = whole_groups(asked, limit, wanted)
    assert wanted <= set(again)
    regrouped = groups([asked[position] for position in again], limit)
    kept = [group for group in found if wanted & set(group)]
    assert [[again[position] for position in group] for group in regrouped] == kept
