"""Updates whose upload was cut: what was sent first, what is left, and how it is aggregated."""

from dataclasses import replace

import pytest
import torch

from fedsim.lora.factors import add, columns, dense
from fedsim.method.aggregate import aggregate, received_columns
from fedsim.method.fedhera import FedHeraOptions, assemble
from fedsim.method.messages import RankPlan, UploadCut
from fedsim.method.partial import arrived, arrived_ranks, column_energies, sending_order
from tests.cohorts import SHAPES, decaying_adapter, plan, prices, random_change, update, zero_change

METHOD = assemble(FedHeraOptions(rank_cap=40))
PLAN = RankPlan((6, 4, 8, 3), (2, 4, 5, 0))
BYTES = tuple(prices().up_bytes.tolist())


def start():
    return METHOD.init(SHAPES, 3, decaying_adapter())


def prefix_of(state, ranks):
    return METHOD.redistribute(state, ranks, 0).prefix


def cut(whole, size):
    return replace(whole, sent=UploadCut(size, BYTES))


def explicit_column(state, change, index, layer, column):
    """What one column of a change does to the product, formed."""
    received = received_columns(state, layer, PLAN.trained[index])
    before = dense(columns(received, column, column + 1)).double()
    return dense(columns(add(received, change[layer.name]), column, column + 1)).double() - before


def test_the_energy_of_a_column_is_that_of_its_dense_change():
    state, change = start(), random_change(PLAN, seed=1)
    for index, layer in enumerate(SHAPES[:3]):
        energies = column_energies(prefix_of(state, PLAN)[layer.name], change[layer.name])
        for column, energy in enumerate(energies.tolist()):
            explicit = explicit_column(state, change, index, layer, column)
            assert energy == pytest.approx(float(explicit.square().sum()), rel=1e-5)


def test_columns_are_sent_by_energy_per_byte_and_every_part_is_the_best_of_its_size():
    state, change = start(), random_change(PLAN, seed=1)
    order = sending_order(prefix_of(state, PLAN), change, SHAPES, BYTES)
    assert len(order) == len(set(order)) == sum(PLAN.trained)
    size_of = dict(zip((layer.name for layer in SHAPES), BYTES, strict=True))
    energies = {
        name: column_energies(prefix_of(state, PLAN)[name], factors) for name, factors in change.items()
    }
    densities = [float(energies[name][column]) / size_of[name] for name, column in order]
    assert densities == sorted(densities, reverse=True)


def test_a_part_holds_whole_columns_and_no_more_bytes_than_came():
    state, whole = start(), update(0, 0, PLAN, random_change(PLAN, seed=1))
    prefix, total = prefix_of(state, PLAN), sum(b * r for b, r in zip(BYTES, PLAN.trained, strict=True))
    before = 0
    for size in range(0, total + 1, 37):
        part = arrived(cut(whole, size), prefix, SHAPES)
        used = sum(b * r for b, r in zip(BYTES, arrived_ranks(part, SHAPES), strict=True))
        assert used <= size < used + max(BYTES) + (total if used == total else 0)
        assert used >= before
        before = used
        for name, factors in part.change.items():
            for column in set(range(factors.rank)) - set(part.arrived.get(name, ())):
                assert not factors.lora_a[column].any()
                assert not factors.lora_b[:, column].any()
    assert arrived_ranks(arrived(cut(whole, total), prefix, SHAPES), SHAPES) == PLAN.trained


def test_an_update_that_came_whole_stays_as_it_is():
    state, whole = start(), update(0, 0, PLAN, random_change(PLAN, seed=1))
    assert arrived(whole, prefix_of(state, PLAN), SHAPES) is whole


@pytest.mark.parametrize("size", [300, 700, 1200, 1900])
@pytest.mark.parametrize("version", [0, 1])
def test_columns_that_did_not_arrive_do_not_count(size, version):
    """The sum of changes over what arrived, each product formed; also against an older version."""
    base = start()
    other = update(1, version, plan(5, 3), random_change(plan(5, 3), seed=2))
    state = base if version == 0 else aggregate(base, [replace(other, base_version=0)], [1.0], max_rank=40)
    part = arrived(cut(update(0, 0, PLAN, random_change(PLAN, seed=1)), size), prefix_of(base, PLAN), SHAPES)
    assert 0 < sum(arrived_ranks(part, SHAPES)) < sum(PLAN.trained)
    weights = [0.4, 0.5]
    got = aggregate(state, [part, other], weights, {0: base}, max_rank=64)
    for index, layer in enumerate(SHAPES):
        expected = dense(METHOD.export(state)[layer.name]).double()
        for column in part.arrived.get(layer.name, ()):
            expected += 0.4 * explicit_column(base, part.change, index, layer, column)
        received = received_columns(state, layer, 3)
        after = dense(add(received, other.change[layer.name])).double()
        expected += 0.5 * (after - dense(received).double())
        found = dense(METHOD.export(got)[layer.name]).double()
        assert torch.allclose(found, expected, atol=3e-6 * float(expected.norm()))


@pytest.mark.parametrize("size", [0, 300, 1000, 5000])
def test_at_learning_rate_zero_a_part_moves_nothing(size):
    state = start()
    parts = [
        arrived(cut(update(number, 0, PLAN, zero_change(METHOD, state, PLAN)), size), prefix, SHAPES)
        for number, prefix in enumerate([prefix_of(state, PLAN)] * 2)
    ]
    after = aggregate(state, parts, [0.6, 0.4], max_rank=40)
    for layer in SHAPES:
        before, now = (dense(METHOD.export(s)[layer.name]).double() for s in (state, after))
        assert float((now - before).norm()) < 1e-6 * float(before.norm())
