"""Versions: stored, combined, released."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedsim.errors import ProtocolError
from fedsim.learn.versions import VersionStore
from fedsim.lora.factors import Factors, adapter_norm, dense
from fedsim.method.messages import Update, UploadCut
from fedsim.sim.executor import Aggregator
from tests.unit.learn.toy import METHOD, random_adapter, request


@pytest.fixture
def store(slotted):
    shape = slotted[2]
    return VersionStore(METHOD, shape.layers, 0, random_adapter(shape, [3]))


def update(slotted, number, change):
    plan = request(number, 0, slotted[2]).plan
    return Update(number, 0, 0, plan, change, 10, 1.0)


def change(slotted, seed, scale=0.1):
    return random_adapter(slotted[2], [2], seed, scale)


def broken(adapter):
    name = next(iter(adapter))
    return {**adapter, name: Factors(lora_a=adapter[name].lora_a * torch.nan, lora_b=adapter[name].lora_b)}


def assert_equal(left, right):
    for name in left:
        torch.testing.assert_close(dense(left[name]), dense(right[name]), atol=1e-5, rtol=1e-4)


def test_version_zero_is_the_initial_adapter(store, slotted):
    adapter = random_adapter(slotted[2], [3])
    assert_equal(store.export(0), adapter)
    assert {len(values) for values in store.spectrum(0).values()} == {3}
    assert isinstance(store, Aggregator)
    zero = VersionStore(METHOD, slotted[2].layers, 0)
    assert adapter_norm(zero.export(0)) == 0.0
    assert {len(values) for values in zero.spectrum(0).values()} == {0}


async def test_aggregation_makes_the_next_version_and_keeps_the_old(store, slotted):
    combined = await store.aggregate(0, [update(slotted, 7, change(slotted, 1))], [1.0])
    assert store.versions == (0, 1)
    assert combined.alignments == {7: 0.5}
    assert combined.failed == {}
    np.testing.assert_array_equal(
        combined.spectrum["model.layers.0.self_attn.q_proj"],
        store.spectrum(1)["model.layers.0.self_attn.q_proj"],
    )
    assert adapter_norm(store.export(1)) != pytest.approx(adapter_norm(store.export(0)), rel=1e-3)
    store.release(0)
    assert store.versions == (1,)
    with pytest.raises(ProtocolError, match="version 0 is not stored"):
        store.spectrum(0)
    with pytest.raises(ProtocolError):
        store.release(0)


async def test_a_non_finite_update_fails_and_its_weight_goes_to_the_others(store, slotted):
    good = [update(slotted, 1, change(slotted, 1)), update(slotted, 3, change(slotted, 3))]
    bad = update(slotted, 2, broken(change(slotted, 2)))
    combined = await store.aggregate(0, [good[0], bad, good[1]], [0.3, 0.4, 0.3])
    assert combined.failed == {2: "non-finite update"}
    with_bad = store.export(1)
    store.release(1)
    await store.aggregate(0, good, [0.5, 0.5])
    assert_equal(with_bad, store.export(1))


async def test_where_all_updates_fail_the_version_repeats(store, slotted):
    combined = await store.aggregate(
        0, [update(slotted, 1, broken(change(slotted, 1))), update(slotted, 2, None)], [0.5, 0.5]
    )
    assert set(combined.failed) == {1, 2}
    assert_equal(store.export(1), store.export(0))
    assert store.state(1).version == 1


def test_a_payload_follows_the_plan(store, slotted):
    payload = store.payload(request(0, 0, slotted[2], total=4, trained=2))
    assert {factors.rank for factors in payload.prefix.values()} == {2}
    assert {factors.rank for factors in payload.tail.values()} == {2}


async def test_shares_of_failed_updates_are_spread_and_discounts_stay(store, slotted):
    """The rule: shares are renormalised over what is left, and an old update still counts less."""
    old = replace(update(slotted, 1, change(slotted, 1)), discount=0.25)
    new = replace(update(slotted, 3, change(slotted, 3)), discount=0.5)
    bad = replace(update(slotted, 2, broken(change(slotted, 2))), discount=0.9)
    await store.aggregate(0, [old, bad, new], [0.3, 0.4, 0.3])
    with_bad = store.export(1)
    store.release(1)
    plain = [replace(each, discount=1.0) for each in (old, new)]
    await store.aggregate(0, plain, [0.5 * 0.25, 0.5 * 0.5])
    assert_equal(with_bad, store.export(1))


async def test_of_an_update_that_was_cut_only_what_came_counts(store, slotted):
    shape = slotted[2]
    whole = update(slotted, 1, change(slotted, 1))
    sizes = tuple(4 * (layer.d_in + layer.d_out) for layer in shape.layers)
    total = sum(size * rank for size, rank in zip(sizes, whole.plan.trained, strict=True))
    cut = replace(whole, sent=UploadCut(total // 2, sizes))
    combined = await store.aggregate(0, [cut], [1.0])
    ranks = combined.arrived[1]
    assert 0 < sum(ranks) < sum(whole.plan.trained)
    assert sum(size * rank for size, rank in zip(sizes, ranks, strict=True)) <= total // 2
    part = store.export(1)
    store.release(1)
    assert (await store.aggregate(0, [whole], [1.0])).arrived == {}
    assert any(
        float((dense(part[name]) - dense(pair)).norm()) > 1e-3 for name, pair in store.export(1).items()
    )
