"""Drift instruments: figures against dense matrices, oracles against free clients, no side effects."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedsim.learn.executors.inline import InlineExecutor
from fedsim.learn.measure import (
    DriftGauge,
    DriftSettings,
    drift,
    effective_rank,
    information_gain_ratio,
    mean_figures,
    paper_drift,
    received_adapter,
    update_of,
)
from fedsim.learn.oracle import OracleStore
from fedsim.learn.train import TrainingSettings
from fedsim.learn.trainer import ClientTrainer
from fedsim.learn.versions import VersionStore
from fedsim.lora.factors import Factors, add, dense, stack
from fedsim.method.bundle import FactorState, Payload
from fedsim.method.catalogue import build_method
from fedsim.method.messages import RankPlan, TrainingFailure
from tests.unit.learn.toy import random_adapter, request, same

TRAINING = TrainingSettings(batch_size=2, max_length=64, wire_dtype="float32")
DRIFT = DriftSettings(
    clients=8, every=1, oracle_rank=6, definitions=("fedsim",), seed=5, wire_dtype="float32"
)


@pytest.fixture
def method():
    return build_method("fedhera", {"rank_cap": 16})


@pytest.fixture
def store(slotted, method):
    return OracleStore(method, slotted[2].layers, 3, random_adapter(slotted[2], [4, 3], scale=0.1))


@pytest.fixture
def inline(slotted, task, store):
    return InlineExecutor(store, ClientTrainer(slotted[0], slotted[1], task, TRAINING), task, TRAINING)


def pair(rank, seed=0, d_in=5, d_out=7):
    generator = torch.Generator().manual_seed(seed)
    return Factors(
        lora_a=torch.randn(rank, d_in, generator=generator),
        lora_b=torch.randn(d_out, rank, generator=generator),
    )


def open_gate(asked):
    return replace(asked, assignment=replace(asked.assignment, gate=1.0))


async def measured(gauge, requests):
    answers = await gauge.train(requests)
    combined = await gauge.aggregate(0, answers, [1.0 / len(answers)] * len(answers))
    return combined.measured


# --- figures against dense matrices ----------------------------------------------------------------------


def test_drift_is_that_of_the_dense_matrices():
    update, oracle = {"a": pair(2, 1), "b": pair(1, 2)}, {"a": pair(3, 3), "b": pair(2, 4)}
    left = torch.cat([dense(update[name]).flatten() for name in "ab"]).double()
    right = torch.cat([dense(oracle[name]).flatten() for name in "ab"]).double()
    found = drift(update, oracle)
    assert found["absolute_drift"] == pytest.approx(float((left - right).norm()), rel=1e-5)
    assert found["relative_drift"] == pytest.approx(float((left - right).norm() / right.norm()), rel=1e-5)
    assert found["alignment"] == pytest.approx(float(left @ right / left.norm() / right.norm()), rel=1e-5)
    assert found["oracle_norm"] == pytest.approx(float(right.norm()), rel=1e-5)
    assert paper_drift(update, oracle)["paper_relative_drift"] == pytest.approx(found["relative_drift"])


def test_drift_from_an_oracle_that_stood_still_has_no_relative_figure():
    still = {"a": Factors(lora_a=torch.zeros(2, 5), lora_b=torch.zeros(7, 2))}
    found = drift({"a": pair(2)}, still)
    assert found["relative_drift"] is None
    assert found["alignment"] == 0.0
    assert paper_drift({"a": pair(2)}, still)["paper_relative_drift"] is None


def test_the_update_is_the_change_of_the_product_with_its_scale_and_without_a_returned_tail():
    prefix, tail, change = pair(2, 1), pair(3, 2), pair(5, 3)
    payload = Payload({"a": prefix}, {"a": tail}, scaling={"a": 0.5})
    learned = Factors(lora_a=change.lora_a[:2], lora_b=change.lora_b[:, :2])
    expected = 0.5 * (dense(add(prefix, learned)) - dense(prefix))
    torch.testing.assert_close(dense(update_of(payload, {"a": change})["a"]), expected)
    torch.testing.assert_close(dense(update_of(payload, {"a": learned})["a"]), expected)


def test_what_was_received_is_prefix_gated_tail_and_merged_part():
    prefix, tail, merged = pair(2, 1), pair(3, 2), pair(1, 3)
    payload = Payload({"a": prefix}, {"a": tail}, merged={"a": merged}, scaling={"a": 2.0})
    expected = 2.0 * (dense(prefix) + 0.25 * dense(tail)) + dense(merged)
    torch.testing.assert_close(dense(received_adapter(payload, 0.25)["a"]), expected)


def test_information_gain_compares_received_with_trained_energy():
    spectrum = {"a": np.array([3.0, 2.0, 1.0]), "b": np.array([2.0])}
    assert information_gain_ratio(spectrum, RankPlan((2, 1), (1, 0))) == pytest.approx((9 + 4 + 4) / 9)
    assert information_gain_ratio(spectrum, RankPlan((9, 1), (9, 1))) == 1.0
    assert information_gain_ratio(spectrum, RankPlan((2, 1), (0, 0))) is None
    assert information_gain_ratio({"a": np.array([]), "b": np.array([])}, RankPlan((2, 1), (1, 1))) is None


def test_the_effective_rank_counts_equal_values_and_discounts_small_ones():
    assert effective_rank({"a": np.ones(4), "b": np.array([5.0]), "c": np.array([])}) == pytest.approx(2.5)
    assert 1.0 < effective_rank({"a": np.array([1.0, 0.01])}) < 1.1
    assert effective_rank({"a": np.array([])}) is None


def test_means_leave_out_what_is_missing():
    assert mean_figures([{"x": 1.0}, {"x": None}, {"x": 3.0}], ["x", "y"]) == {"x": 2.0, "y": None}


# --- oracles ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [2, 6, 400])
def test_an_oracle_receives_the_whole_version_ungated_and_trains_its_rank(slotted, store, rank):
    asked = store.oracle_request(request(1, 0, slotted[2]), rank, "fedsim")
    payload, whole = store.payload(asked), store.export(0)
    assert asked.assignment.gate == 1.0
    assert (asked.assignment.seed, asked.assignment.learning_rate) == (1001, 1e-2)
    for layer in slotted[2].layers:
        assert payload.prefix[layer.name].rank == min(rank, layer.d_in, layer.d_out)
        received = dense(stack([payload.prefix[layer.name], payload.tail[layer.name]]))
        torch.testing.assert_close(received, dense(whole[layer.name]))


def test_an_oracle_of_a_factor_pair_starts_from_its_product(slotted, method):
    pairs = random_adapter(slotted[2], [4, 3], scale=0.1)
    state = FactorState(0, pairs, {}, slotted[2].layers, 0)
    odd = replace(method, init=lambda *_: state, export=lambda state: state.pair)
    store = OracleStore(odd, slotted[2].layers, 0)
    payload = store.payload(store.oracle_request(request(1, 0, slotted[2]), 6, "fedsim"))
    for name, factors in pairs.items():
        torch.testing.assert_close(
            dense(stack([payload.prefix[name], payload.tail[name]])), dense(factors), rtol=1e-4, atol=1e-6
        )


def test_the_published_oracle_starts_from_zero_at_the_published_scale(slotted, store):
    asked = store.oracle_request(request(1, 0, slotted[2]), 64, "paper")
    assert asked.assignment.learning_rate == pytest.approx(1e-2 * math.sqrt(16 / 64))
    payload = store.payload(asked)
    layer = slotted[2].layers[0]
    drawn = payload.prefix[layer.name].lora_a
    bound = math.sqrt(16 / 64 / layer.d_in)
    assert not payload.prefix[layer.name].lora_b.any()
    assert 0.9 * bound < float(drawn.abs().max()) <= bound
    assert payload.tail[layer.name].rank == 0


def test_requests_of_clients_get_what_a_plain_store_gives(slotted, method, store):
    plain = VersionStore(method, slotted[2].layers, 3, random_adapter(slotted[2], [4, 3], scale=0.1))
    asked = request(1, 0, slotted[2])
    assert same(store.payload(asked).prefix, plain.payload(asked).prefix)
    assert same(store.payload(asked).tail, plain.payload(asked).tail)


async def test_a_client_without_limits_is_its_own_oracle_and_a_limited_one_drifts(slotted, inline, store):
    gauge = DriftGauge(inline, store, DRIFT)
    rich = open_gate(request(1, 0, slotted[2], total=6, trained=6))
    poor = request(2, 0, slotted[2], total=4, trained=1)
    found = (await measured(gauge, [rich, poor])).assignments
    assert found[1]["absolute_drift"] == 0.0
    assert found[1]["alignment"] == pytest.approx(1.0)
    assert found[1]["information_gain_ratio"] == 1.0
    assert found[1]["reception_error"] == pytest.approx(0.0, abs=1e-6)
    assert found[2]["relative_drift"] > 0.2
    assert found[2]["alignment"] < 0.95
    assert found[2]["information_gain_ratio"] > 1.0
    assert found[2]["update_norm"] < found[2]["oracle_norm"]


async def test_reception_error_is_the_lost_tail(slotted, inline, store):
    gauge = DriftGauge(inline, store, DRIFT)
    found = await measured(gauge, [request(1, 0, slotted[2], total=2, trained=1)])
    spectrum = VersionStore.spectrum(store, 0)
    lost = sum(float((values[2:] ** 2).sum()) for values in spectrum.values())
    energy = sum(float((values**2).sum()) for values in spectrum.values())
    assert found.assignments[1]["reception_error"] == pytest.approx(math.sqrt(lost / energy), rel=1e-4)


async def test_equal_updates_do_not_disperse_and_both_definitions_can_be_asked_for(slotted, inline, store):
    gauge = DriftGauge(inline, store, replace(DRIFT, definitions=("fedsim", "paper")))
    first, twin = request(1, 0, slotted[2]), request(2, 0, slotted[2])
    twin = replace(twin, assignment=replace(twin.assignment, seed=first.assignment.seed))
    answers = await gauge.train([first, twin])
    combined = await gauge.aggregate(0, answers, [0.5, 0.5])
    assert combined.measured.means["cross_client_drift"] == pytest.approx(0.0, abs=1e-9)
    assert combined.measured.means["paper_absolute_drift"] is None, "the published code starts at round 1"
    later = request(3, 1, slotted[2], version=1)
    answers = await gauge.train([later])
    combined = await gauge.aggregate(1, answers, [1.0])
    found = combined.measured.assignments[3]
    assert found["paper_relative_drift"] > found["relative_drift"]
    assert tuple(combined.measured.means) == gauge._settings.figures


# --- no side effects -------------------------------------------------------------------------------------


async def test_measuring_changes_neither_answers_nor_the_next_version(slotted, task, method, inline, store):
    plain_store = VersionStore(method, slotted[2].layers, 3, random_adapter(slotted[2], [4, 3], scale=0.1))
    plain = InlineExecutor(plain_store, ClientTrainer(slotted[0], slotted[1], task, TRAINING), task, TRAINING)
    gauge = DriftGauge(inline, store, DRIFT)
    asked = [request(1, 0, slotted[2]), request(2, 3, slotted[2], trained=1)]
    for _ in range(2):
        left, right = await gauge.train(asked), await plain.train(asked)
        assert [a.loss for a in left] == [b.loss for b in right]
        assert all(same(a.change, b.change) for a, b in zip(left, right, strict=True))
    combined = await gauge.aggregate(0, left, [0.5, 0.5])
    expected = await plain_store.aggregate(0, right, [0.5, 0.5])
    assert combined.alignments == expected.alignments
    assert same(store.export(1), plain_store.export(1))


async def test_only_sampled_versions_and_clients_cost_an_oracle(slotted, inline, store):
    asked_for = []

    class Counting:
        async def train(self, requests):
            asked_for.append(len(requests))
            return await inline.train(requests)

    gauge = DriftGauge(Counting(), store, replace(DRIFT, clients=1, every=2))
    answers = await gauge.train([request(1, 0, slotted[2]), request(2, 3, slotted[2])])
    assert (await gauge.aggregate(0, answers, [0.5, 0.5])).measured is None
    answers = await gauge.train([request(n, n, slotted[2], version=1) for n in (3, 4)])
    found = (await gauge.aggregate(1, answers, [0.5, 0.5])).measured
    assert asked_for == [2, 2, 1]
    assert sorted("absolute_drift" in row for row in found.assignments.values()) == [False, True]
    assert found.means["absolute_drift"] == next(
        row["absolute_drift"] for row in found.assignments.values() if "absolute_drift" in row
    )


async def test_the_sample_follows_clients_not_the_order_of_their_answers(slotted, inline, store):
    gauge = DriftGauge(inline, store, replace(DRIFT, clients=1))
    answers = await gauge.train([request(n, n, slotted[2], steps=1) for n in (1, 2, 3)])
    assert gauge._sample(answers) == gauge._sample(answers[::-1])
    other = DriftGauge(inline, store, replace(DRIFT, clients=3))
    assert [update.assignment for update in other._sample(answers[::-1])] == [1, 2, 3]


async def test_an_oracle_that_fails_leaves_its_figures_out_and_the_run_alone(slotted, inline, store):
    class Failing:
        async def train(self, requests):
            if hasattr(requests[0], "definition"):
                return [TrainingFailure(asked.assignment.id, 0, "wild") for asked in requests]
            return await inline.train(requests)

    found = await measured(DriftGauge(Failing(), store, DRIFT), [request(1, 0, slotted[2])])
    assert "absolute_drift" not in found.assignments[1]
    assert found.means["absolute_drift"] is None
    assert found.means["update_norm"] > 0


async def test_released_versions_take_their_requests_along(slotted, inline, store):
    gauge = DriftGauge(inline, store, DRIFT)
    answers = await gauge.train([request(1, 0, slotted[2])])
    await gauge.aggregate(0, answers, [1.0])
    gauge.release(0)
    assert gauge._requests == {}
    assert store.versions == (1,)
