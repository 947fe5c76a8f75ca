import math

import numpy as np
import pytest

from fedsim.errors import TraceError
from fedsim.world.trace import StepTrace


def test_values_hold_until_the_next_step_and_for_ever_after_the_last():
    trace = StepTrace.of([(0, 5), (10, 0), (20, 7)])
    assert [trace.value(t) for t in (0, 9.99, 10, 19.9, 20, 1e9)] == [5, 5, 0, 0, 7, 7]


def test_a_looped_trace_begins_again():
    trace = StepTrace.of([(0, 1), (10, 2)], period_s=15)
    assert [trace.value(t) for t in (14.9, 15, 25, 30)] == [2, 1, 2, 1]
    assert trace.integral(0, 15) == 20
    assert trace.integral(5, 35) == 5 + 10 + 20 + 5


def test_root_lies_where_the_integral_reaches_the_amount():
    trace = StepTrace.of([(0, 2), (10, 0), (20, 4)], period_s=30)
    assert trace.inverse_integral(0, 10) == 5
    assert trace.inverse_integral(0, 20) == 10  # the earliest instant, before the outage
    assert trace.inverse_integral(0, 24) == 21
    assert trace.inverse_integral(0, 60) == 30  # exactly one pass
    assert trace.inverse_integral(0, 60 * 1000 + 2) == 30_001
    assert trace.inverse_integral(12, 4) == 21


def test_a_trace_that_ends_in_an_outage_never_delivers_more():
    trace = StepTrace.of([(0, 2), (10, 0)])
    assert trace.inverse_integral(0, 20) == 10
    assert trace.inverse_integral(0, 20.1) == math.inf


def test_nothing_to_deliver_takes_no_time():
    assert StepTrace.of([(0, 0)]).inverse_integral(3, 0) == 3


def test_equal_neighbours_are_no_change():
    trace = StepTrace.of([(0, 1), (5, 1), (8, 2), (9, 1)], period_s=10)
    assert trace.next_change_s(0) == 8
    assert trace.next_change_s(9.5) == 18  # the value at the end equals the value at the beginning
    assert StepTrace.constant(3).next_change_s(0) == math.inf


def test_views_share_the_arrays():
    trace = StepTrace.of([(0, 1), (5, 2)], period_s=10)
    view = trace.shifted(3).scaled(10)
    assert view.times_s is trace.times_s
    assert view.prefix is trace.prefix
    assert view.value(2) == 20


def test_arrays_cannot_be_written():
    with pytest.raises(ValueError, match="read-only"):
        StepTrace.of([(0, 1), (5, 2)]).values[0] = 9


def test_a_week_in_the_root_is_still_exact():
    trace = StepTrace.of([(0, 1e6), (600, 2e6)], period_s=1200)
    start = 52 * 604_800 + 0.5
    end = trace.inverse_integral(start, 1e6)
    assert end - start == pytest.approx(1.0, abs=1e-8)


@pytest.mark.parametrize(
    ("times", "values", "period"),
    [
        ([1], [1], None),
        ([0, 0], [1, 2], None),
        ([0], [-1], None),
        ([0], [math.nan], None),
        ([0, 5], [1, 2], 5),
        ([], [], None),
    ],
)
def test_impossible_steps_are_refused(times, values, period):
    with pytest.raises(TraceError, match="expected"):
        StepTrace(np.array(times, float), np.array(values, float), period)


def test_says_when_it_falls_below_a_level():
    trace = StepTrace.of([(0, 5.0), (10, 3.0), (20, 8.0)], period_s=30)
    assert trace.falls_below_s(4.0, 2.0, 30.0) == 10.0
    assert trace.falls_below_s(4.0, 12.0, 30.0) == 12.0
    assert trace.falls_below_s(4.0, 21.0, 40.0) == math.inf
    assert trace.falls_below_s(4.0, 21.0, 41.0) == 40.0
    assert trace.falls_below_s(3.0, 0.0, 1e6) == math.inf
