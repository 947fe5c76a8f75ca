"""The stream of columns."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedsim.method.messages import RankPlan
from fedsim.sim.delivery import Delivery

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
