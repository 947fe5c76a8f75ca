"""The stream of columns."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedsim.method.messages import RankPlan, Stream
from fedsim.sim.delivery import Delivery, Streamed

PRICES = np.array([10, 3], dtype=np.int64)


def plan(*total):
    return RankPlan(tuple(total), tuple(total))


def test_columns_come_by_ascending_index_all_layers_in_turn():
    delivery = Delivery.of(plan(2, 2), PRICES)
    assert [delivery.received(sent) for sent in (0, 1, 10, 11, 13, 14, 26)] == [
        (0, 0),
        (1, 0),
        (1, 0),
        (1, 1),
        (1, 1),
        (2, 1),
        (2, 2),
    ]


def test_a_replan_keeps_the_column_under_way():
    delivery = Delivery.of(plan(2, 2), PRICES).replanned(14, plan(2, 1))
    assert delivery.floor == (2, 1)
    assert delivery.size_bytes == 23
    assert delivery.received(14) == (2, 1)


@given(st.tuples(st.integers(0, 6), st.integers(0, 6)), st.integers(0, 100))
def test_received_columns_cost_at_least_what_was_sent_and_less_than_one_column_more(total, sent):
    delivery = Delivery.of(plan(*total), PRICES)
    sent = min(sent, delivery.size_bytes)
    paid = int(PRICES @ np.array(delivery.received(sent)))
    assert sent <= paid < sent + PRICES.max()
    assert all(have <= limit for have, limit in zip(delivery.received(sent), total, strict=True))


STREAM = Stream((1, 0, 1, 0, 1), 60.0)


def streamed(trained=(2, 3)):
    return Streamed.of(RankPlan((2, 3), trained), PRICES, STREAM)


def test_a_stream_has_the_order_that_the_server_gave():
    delivery = streamed()
    assert delivery.size_bytes == 29
    assert [delivery.received(sent) for sent in (0, 1, 3, 4, 13, 14, 29)] == [
        (0, 0), (0, 1), (0, 1), (1, 1), (1, 1), (1, 2), (2, 3),
    ]  # fmt: skip
    assert [delivery.whole(sent) for sent in (0, 2, 3, 12, 13, 16, 28, 29)] == [
        (0, 0), (0, 0), (0, 1), (0, 1), (1, 1), (1, 2), (2, 2), (2, 3),
    ]  # fmt: skip


def test_a_stream_is_cut_no_earlier_than_after_a_column_that_can_be_trained():
    assert streamed().least_bytes == 3
    assert streamed(trained=(1, 0)).least_bytes == 13
    assert streamed().closes_at_s == 60.0
    whole = Delivery.of(plan(2, 2), PRICES)
    assert whole.closes_at_s == np.inf
    assert whole.least_bytes == whole.size_bytes


def test_a_stream_that_is_planned_again_goes_on_after_what_has_begun():
    again = streamed().replanned(4, plan(2, 2), Stream((0, 0, 1, 1), 60.0))
    assert again.layers.tolist() == [1, 0, 0, 1]
    assert again.received(4) == (1, 1)
    assert again.whole(again.size_bytes) == (2, 2)
    less = streamed().replanned(4, plan(1, 1), Stream((0, 1), 60.0))
    assert less.size_bytes == 13


@given(st.permutations([0, 0, 0, 1, 1, 1, 1]), st.integers(0, 42))
def test_whole_columns_are_those_that_have_begun_but_for_the_one_under_way(order, sent):
    delivery = Streamed.of(plan(3, 4), PRICES, Stream(tuple(order), 1.0))
    begun, whole = np.array(delivery.received(sent)), np.array(delivery.whole(sent))
    assert (begun - whole).sum() in (0, 1)
    assert PRICES @ whole <= sent <= PRICES @ begun
