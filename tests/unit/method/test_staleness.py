import pytest

from fedsim.errors import ScenarioError
from fedsim.method.staleness import StalenessRule, constant, hinge, polynomial


def test_fresh_updates_count_in_full():
    assert (constant(0), polynomial(0), hinge(0)) == (1.0, 1.0, 1.0)


def test_old_updates_count_less():
    assert constant(9) == 1.0
    assert polynomial(3) == pytest.approx(0.5)
    assert polynomial(3, exponent=1.0) == pytest.approx(0.25)
    assert hinge(4) == 1.0
    assert hinge(6) == pytest.approx(1 / 21)


def test_updates_from_the_future_are_a_bug():
    for rule in (constant, polynomial, hinge):
        with pytest.raises(ValueError, match="at least 0"):
            rule(-1)


def test_wrong_constants_are_refused():
    with pytest.raises(ScenarioError, match="exponent"):
        polynomial(1, exponent=-0.5)
    with pytest.raises(ScenarioError, match="slope"):
        hinge(1, slope=0.0)


def test_a_rule_is_one_of_them_with_its_constants():
    assert StalenessRule("constant")(7) == 1.0
    assert StalenessRule("polynomial", exponent=1.0)(3) == pytest.approx(0.25)
    assert StalenessRule("hinge", slope=2.0, grace=1)(3) == pytest.approx(0.2)


def test_a_rule_refuses_wrong_constants_before_it_is_used():
    with pytest.raises(ScenarioError, match="exponent"):
        StalenessRule("polynomial", exponent=-1.0)
