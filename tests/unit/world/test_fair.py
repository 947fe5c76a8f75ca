"""Max-min fair shares: cases computed by hand, and any case against the definition, link by link."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedsim.world.fair import fair_rates, water_level

NO_CELL = -1


def rates(limits, cell=None, cells=(), common=math.inf):
    own = np.full(len(limits), NO_CELL) if cell is None else np.array(cell)
    return fair_rates(np.array(limits, dtype=float), own, np.array(cells, dtype=float), common).tolist()


def test_equal_transfers_share_equally():
    assert rates([10, 10, 10, 10], common=20) == [5, 5, 5, 5]


def test_what_a_slow_one_leaves_goes_to_the_others():
    assert rates([2, 10, 10], common=12) == [2, 5, 5]  # 2 at its own limit, then (12 - 2) / 2
    assert rates([1, 3, 10, 10], common=12) == [1, 3, 4, 4]


def test_a_link_that_is_wide_enough_limits_nobody():
    assert rates([2, 3], common=5) == [2, 3]
    assert water_level(np.array([2.0, 3.0]), 5.0) == math.inf


def test_cells_fill_apart():
    assert rates([9, 9, 9], [0, 0, 1], [10, 4]) == [5, 5, 4]


def test_the_bottleneck_may_be_the_cell_or_the_common_link():
    # Cell 0 lets 2 + 2 through, cell 1 lets 6; the common link of 9 then gives 2, 2 and 5.
    assert rates([9, 9, 9], [0, 0, 1], [4, 6], common=9) == [2, 2, 5]
    # A common link of 4.5 is the bottleneck of all three.
    assert rates([9, 9, 9], [0, 0, 1], [4, 6], common=4.5) == [1.5, 1.5, 1.5]


def test_a_device_without_a_cell_meets_the_common_link_only():
    assert rates([9, 9, 9], [0, NO_CELL, 0], [4], common=10) == [2, 6, 2]


def test_a_dead_link_stops_everybody():
    assert rates([9, 9], [0, 0], [0]) == [0, 0]
    assert rates([9, 9], common=0) == [0, 0]
    assert rates([]) == []


sizes = st.floats(0, 100, allow_nan=False)


@given(st.data())
def test_nobody_could_get_more_without_somebody_poorer_getting_less(data):
    limits = np.array(data.draw(st.lists(sizes, min_size=1, max_size=12)))
    cells = np.array(data.draw(st.lists(sizes, min_size=1, max_size=4)))
    own = st.integers(NO_CELL, len(cells) - 1)
    cell = np.array(data.draw(st.lists(own, min_size=len(limits), max_size=len(limits))))
    common = data.draw(st.one_of(sizes, st.just(math.inf)))
    got = fair_rates(limits, cell, cells, common)
    links = [(limits[k], np.arange(len(limits)) == k) for k in range(len(limits))]
    links += [(cells[k], cell == k) for k in range(len(cells))]
    links.append((common, np.ones(len(limits), dtype=bool)))
    slack = 1e-9 * (1 + limits.sum())
    for capacity, users in links:
        assert got[users].sum() <= capacity + slack
    for k, rate in enumerate(got):
        # The definition: each passes a full link on which nobody is faster.
        assert any(
            got[users].sum() >= capacity - slack and rate >= got[users].max() - slack
            for capacity, users in links
            if users[k]
        )
