import pytest

from fedsim.method.pacing import Mixing, SyncPacing
from fedsim.method.staleness import StalenessRule


def test_seats_round_up_but_not_past_a_rounding_error():
    assert SyncPacing(8, 1.25, 1, None).seats == 10
    assert SyncPacing(10, 1.1, 1, None).seats == 11
    assert SyncPacing(3, 1.5, 1, None).seats == 5


@pytest.mark.parametrize(
    ("arrived", "at_work", "passed", "carried", "verdict"),
    [
        (4, 3, False, 0, "aggregate"),  # the quorum is full
        (3, 3, False, 0, "wait"),
        (3, 0, False, 0, "aggregate"),  # nobody is left
        (1, 0, False, 0, "discard"),
        (1, 3, True, 0, "discard"),
        (2, 3, True, 0, "aggregate"),
        (0, 1, False, 0, "discard"),  # the minimum is out of reach
        (0, 1, False, 1, "wait"),  # with what is carried over it is not
        (1, 3, True, 1, "aggregate"),
        (3, 3, False, 9, "wait"),  # what is carried over fills no quorum
    ],
)
def test_verdicts(arrived, at_work, passed, carried, verdict):
    pacing = SyncPacing(4, 2.0, 2, 100.0, late=Mixing())
    assert pacing.verdict(arrived, at_work, deadline_passed=passed, carried=carried) == verdict


def test_discount_is_rate_times_staleness_weight():
    mixing = Mixing(StalenessRule("polynomial", exponent=1.0), server_rate=0.5)
    assert [mixing.discount(tau) for tau in (0, 1, 4)] == [0.5, 0.25, 0.1]
