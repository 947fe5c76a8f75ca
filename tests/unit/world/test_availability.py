import math

import numpy as np
import pytest

from fedsim.errors import TraceError
from fedsim.world.availability import Availability, join_intervals


def test_intervals_are_half_open():
    a = Availability.of([(10, 20)])
    assert [a.is_online(t) for t in (9.9, 10, 19.9, 20)] == [False, True, True, False]
    assert a.next_departure_s(12) == 20
    assert a.next_return_s(0) == 10
    assert a.next_return_s(20) == math.inf


def test_an_interval_at_the_end_of_the_period_joins_the_one_at_zero():
    a = Availability.of([(0, 10), (90, 100)], period_s=100)
    assert a.next_departure_s(95) == 110
    assert a.next_departure_s(395) == 410
    assert a.next_return_s(10) == 90


def test_always_and_never():
    assert Availability.always().next_departure_s(1e9) == math.inf
    assert Availability.never().next_return_s(0) == math.inf
    assert Availability.of([(0, 100)], period_s=100).next_departure_s(5) == math.inf
    assert Availability.never().next_departure_s(7) == 7


def test_phase_moves_the_reading():
    a = Availability.of([(0, 10)], period_s=100, phase_s=95)
    assert a.next_return_s(0) == 5


def test_joining_closes_short_gaps_and_keeps_the_furthest_end():
    starts, ends = join_intervals(np.array([0.0, 1, 12, 80]), np.array([9.0, 3, 20, 90]), gap_s=5)
    assert starts.tolist() == [0, 80]
    assert ends.tolist() == [20, 90]


def test_an_interval_beyond_the_period_is_refused():
    with pytest.raises(TraceError, match="period"):
        Availability.of([(0, 101)], period_s=100)


def test_overlapping_raw_intervals_are_refused():
    with pytest.raises(TraceError, match="sorted"):
        Availability(np.array([0.0, 5]), np.array([6.0, 9]))
