from types import SimpleNamespace

import pandas as pd
import pytest

from fedsim.experiment.report.budgets import budget_section, cost_to_target, limits, quality_under_budget


def run_of(losses, joules=None, **manifest):
    count = len(losses)
    table = pd.DataFrame(
        {
            "version": range(count),
            "time_s": [3600.0 * k for k in range(count)],
            "bytes_down": [1000 * k for k in range(count)],
            "bytes_up": [500 * k for k in range(count)],
            "loss": losses,
        }
    )
    assignments = pd.DataFrame(
        {
            "settled_at_s": [3600.0 * k for k in range(count)],
            "download_j": joules,
            "train_j": joules,
            "upload_j": None,
        }
    )
    return SimpleNamespace(
        evaluations=table, assignments=assignments, manifest={"scenario": {"cost": {}}} | manifest
    )


def test_a_budget_buys_the_last_measurement_within_it():
    table = quality_under_budget(run_of([4.0, 3.0, 2.5, 2.4, 2.0]))
    hours = table[table["budget"].str.contains("virtual time")]
    assert hours["loss"].tolist() == [3.0, 2.5, 2.4, 2.0]
    assert hours["version"].tolist() == [1, 2, 3, 4]
    assert table[table["budget"].str.contains("traffic")]["loss"].tolist() == [3.0, 2.5, 2.4, 2.0]


def test_a_target_costs_what_had_been_spent_when_it_was_first_reached():
    table = cost_to_target(run_of([4.0, 3.0, 2.5, 2.6, 2.0]))
    assert table["target loss"].tolist() == pytest.approx([3.5, 3.0, 2.5, 2.0])
    assert table["virtual time"].tolist() == ["01:00:00", "01:00:00", "02:00:00", "04:00:00"]
    assert table["traffic"].tolist() == ["1.5 kB", "1.5 kB", "3.0 kB", "6.0 kB"]


def test_joules_are_those_of_assignments_that_had_ended():
    run = run_of([4.0, 3.0, 2.0], joules=1800.0)
    table = quality_under_budget(run)
    assert table[table["budget"].str.contains("energy")]["budget"].iloc[-1] == "3.00 Wh of energy"
    assert cost_to_target(run)["energy"].tolist() == ["2.00 Wh", "2.00 Wh", "3.00 Wh", "3.00 Wh"]


def test_a_little_energy_is_told_in_joules():
    assert cost_to_target(run_of([4.0, 3.0, 2.0], joules=20.0))["energy"].tolist()[-1] == "120.0 J"


def test_without_coefficients_there_are_no_joules():
    assert "energy" not in cost_to_target(run_of([4.0, 3.0]))


def test_a_model_that_gets_worse_has_no_target():
    assert cost_to_target(run_of([2.0, 3.0])).empty


def test_a_stub_has_no_quality_but_limits():
    body = budget_section(run_of([None, None])).body
    assert "No losses were measured" in body
    assert "takes no virtual time" in body


def test_whose_hours_are_meant_is_said():
    run = run_of([1.0], scenario={"cost": {}, "model": {"stands_for": "llama-3.2-1b"}})
    assert any("those of llama-3.2-1b" in line for line in limits(run))


def test_limits_depend_on_how_time_was_found():
    assert any("not a measurement" in line for line in limits(run_of([1.0])))
    calibrated = run_of([1.0], scenario={"cost": {"calibration": "c.json"}})
    assert not any("not a measurement" in line for line in limits(calibrated))
    assert "measured in a real run" in limits(run_of([1.0], runtime="deployed"))[0]
