from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsim.world.importers.intervals import Window, online_rows
from fedsim.world.importers.rows import Count, OnlineRow

DAY = 1440


@st.composite
def stays(draw):
    starts = draw(st.lists(st.integers(0, DAY), max_size=8))
    return [(float(start), float(start + draw(st.integers(0, 400)))) for start in starts]


def minutes(intervals):
    """Say for each minute of a day whether some interval covers it."""
    covered = np.zeros(DAY, dtype=bool)
    for start, end in intervals:
        covered[int(start) : int(min(end, DAY))] = True
    return covered


def rows(intervals, shift=0.0, gap=0.0):
    items = list(online_rows(Window("a", float(DAY), shift), intervals, gap))
    return [item for item in items if isinstance(item, OnlineRow)], [i for i in items if isinstance(i, Count)]


@settings(max_examples=150, deadline=None)
@given(stays(), st.integers(-DAY, 2 * DAY))
def test_the_clock_moves_and_the_minutes_stay(intervals, shift):
    found, _ = rows(intervals, float(shift))
    covered = minutes((row.start_s, row.end_s) for row in found)
    assert (covered == np.roll(minutes(intervals), shift)).all()
    assert all(0 <= row.start_s <= row.end_s <= DAY for row in found)


@settings(max_examples=150, deadline=None)
@given(stays(), st.integers(0, 120))
def test_merging_closes_short_absences_and_nothing_else(intervals, gap):
    found, _ = rows(intervals, gap=float(gap))
    online = [row for row in found if row.end_s > row.start_s]
    assert all(after.start_s - before.end_s > gap for before, after in pairwise(online))
    was, now = minutes(intervals), minutes((row.start_s, row.end_s) for row in online)
    assert (now | ~was).all()
    # What was added are runs of at most the gap.
    edges = np.flatnonzero(np.diff(np.concatenate(([0], (now & ~was).astype(int), [0]))))
    assert (edges[1::2] - edges[::2] <= gap).all()


@settings(max_examples=100, deadline=None)
@given(stays())
def test_every_stay_is_kept_or_counted(intervals):
    found, counts = rows(intervals)
    online = sum(row.end_s > row.start_s for row in found)
    gone = sum(c.number for c in counts if "zero length dropped" in c.what or "merged" in c.what)
    assert online + gone == len(intervals)


def test_no_stay_is_a_row_of_zero_length():
    found, counts = rows([])
    assert found == [OnlineRow("a", 0.0, 0.0)]
    assert [count.number for count in counts] == [1]
