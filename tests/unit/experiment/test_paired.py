"""Intervals over pairs of runs, and how alike the pairs are."""

import pytest
from scipy.stats import ttest_rel

from fedsim.experiment.paired import cohort_overlap, interval


def test_overlap_is_over_versions_that_both_made():
    left = {(0, 1), (0, 2), (1, 5), (2, 9)}
    right = {(0, 2), (0, 3), (1, 5)}
    assert cohort_overlap(left, right) == pytest.approx((1 / 3 + 1) / 2)
    assert cohort_overlap(left, left) == 1.0
    assert cohort_overlap(left, {(7, 1)}) is None


def test_the_interval_is_that_of_a_paired_t_test():
    left, right = [1.0, 1.4, 0.9, 1.3], [0.8, 1.3, 0.9, 1.0]
    mean, half_width = interval([a - b for a, b in zip(left, right, strict=True)])
    expected = ttest_rel(left, right).confidence_interval(0.95)
    assert (mean - half_width, mean + half_width) == pytest.approx((expected.low, expected.high))
    assert interval([0.5]) == (0.5, None)
    assert interval([]) == (None, None)
    assert interval([1.0, 3.0]) == (2.0, pytest.approx(12.7062, rel=1e-4))
