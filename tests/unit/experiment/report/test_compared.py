import pytest

from fedsim.experiment.report.compared import _tables, compared_section, cost, quality, robustness
from tests.unit.experiment.report.test_budgets import run_of


def groups(**losses):
    """Method -> one run per seed, an hour and 1.5 kB per measurement."""
    return {
        method: [run_of(run, seed=seed) for seed, run in enumerate(runs)] for method, runs in losses.items()
    }


TWO = groups(
    quick=[[4.0, 3.0, 2.5, 2.5], [4.0, 3.0, 2.6]],
    slow=[[4.0, 3.5, 3.0, 2.0], [4.0, 3.8, 3.2]],
)


def test_all_methods_get_the_budget_of_the_thriftiest_run():
    table = quality(_tables(TWO)).set_index("budget")
    assert list(table.index[3:5]) == ["02:00:00 of virtual time", "750 B of traffic"]
    assert table.loc["02:00:00 of virtual time", "quick"] == "2.55 ± 0.071"
    assert table.loc["01:00:00 of virtual time", "slow"] == "3.65 ± 0.21"
    assert table.loc["750 B of traffic", "slow"] == "4 ± 0"


def test_the_target_is_one_that_all_methods_reach_under_a_seed():
    table = cost(_tables(TWO)).set_index(["method", "target loss"])
    # seed 0: the weakest best is 2.5, seed 1: 3.2
    (half, whole) = sorted({target for _, target in table.index}, reverse=True)
    assert (half, whole) == (pytest.approx(3.425), pytest.approx(2.85))
    assert table.loc[("quick", whole), "virtual time"] == "01:30:00"
    assert table.loc[("slow", whole), "virtual time"] == "02:30:00"
    assert table.loc[("slow", whole), "seeds"] == 2


def test_robust_is_who_wins_under_every_seed():
    table = robustness(_tables(TWO)).set_index("method")
    assert table["best under"].to_dict() == {"quick": "1 of 2 seeds", "slow": "1 of 2 seeds"}
    assert table.loc["slow", "worst loss"] == 3.2


def test_no_target_where_a_method_has_not_gained():
    assert cost(_tables(groups(a=[[4.0, 3.0]], b=[[4.0, 4.5]]))).empty


def test_stubs_have_no_quality_but_limits():
    body = compared_section(groups(a=[[None, None]], b=[[None, None]])).body
    assert "No losses were measured" in body
    assert "takes no virtual time" in body


def test_the_section_has_all_three_tables():
    body = compared_section(TWO).body
    for caption in ("common budget", "Cost to target", "Robustness"):
        assert caption in body
