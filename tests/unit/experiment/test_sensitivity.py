import json

import numpy as np
import pytest

from fedsim.errors import ScenarioError
from fedsim.experiment.compare import Request
from fedsim.experiment.fleet import build_population
from fedsim.experiment.sensitivity import (
    Change,
    Sensitivity,
    correlations,
    outcomes,
    parse_changes,
    sensitivity,
    sentences,
)
from tests.deploy_world import scenario_of, write_world


def change(kind, value, size):
    return Change(kind, value, size, {})


def test_words_become_changes_of_the_scenario():
    found = parse_changes(["bandwidth=0.5,2", "availability=shift:6h", "compute=2", "trace=resample:3"], 0.1)
    assert (
        parse_changes(["bandwidth=0.5,2 availability=shift:6h", "compute=2 trace=resample:3"], 0.1) == found
    )
    assert [one.label for one in found] == [
        "bandwidth=0.5",
        "bandwidth=2",
        "availability=shift:6h",
        "compute=2",
        "trace=resample:3",
    ]
    assert [dict(one.overrides) for one in found] == [
        {"fleet.bandwidth_scale": "0.05"},
        {"fleet.bandwidth_scale": "0.2"},
        {"fleet.perturb.availability_shift": "21600.0"},
        {"fleet.perturb.compute": "2.0"},
        {"fleet.perturb.resample": "3"},
    ]
    assert found[0].size == pytest.approx(found[1].size)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["bandwidth"],
        ["bandwidth=1"],
        ["bandwidth=-2"],
        ["compute=x"],
        ["availability=6h"],
        ["availability=shift:much"],
        ["heat=2"],
        ["trace=resample", "trace=resample"],
    ],
)
def test_other_words_are_refused(words):
    with pytest.raises(ScenarioError, match="--perturb"):
        parse_changes(words, 1.0)


def test_the_smallest_change_that_turns_the_winner_is_told():
    worlds = [None, change("bandwidth", "4", 1.4), change("bandwidth", "2", 0.7), change("compute", "2", 0.7)]
    means = [{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 2.0}, {"a": 3.0, "b": 1.0}, {"a": 0.1, "b": 0.2}]
    found = Sensitivity("loss_final", outcomes(worlds, means, "loss_final"))
    assert found.turns == {"bandwidth": "2 -> b", "compute": None}
    assert [outcome.kendall for outcome in found.outcomes] == [1.0, -1.0, -1.0, 1.0]
    assert any("turns the winner is 2 -> b" in line for line in sentences(found))


def test_equal_methods_share_the_win_and_neither_turns_it():
    worlds = [None, change("compute", "2", 0.7), change("compute", "4", 1.4)]
    means = [{"a": 1.0, "b": 1.0, "c": 2.0}, {"a": 2.0, "b": 1.0, "c": 3.0}, {"a": 2.0, "b": 2.0, "c": 1.0}]
    found = Sensitivity("loss_final", outcomes(worlds, means, "loss_final"))
    assert found.outcomes[0].winner == "a = b"
    assert found.turns == {"compute": "4 -> c"}
    assert sentences(found)[0] == "Unchanged, a = b are equally good by loss_final."


def test_more_is_better_where_the_figure_says_so():
    assert outcomes([None], [{"a": 1.0, "b": 2.0}], "token_accuracy_final")[0].winner == "b"
    assert outcomes([None], [{"a": 1.0, "b": 2.0}], "loss_final")[0].winner == "a"


def test_equal_methods_have_no_order():
    assert correlations([1.0, 1.0], [1.0, 2.0]) == (None, None)
    assert correlations([1.0, 2.0, 3.0], [1.0, 3.0, 2.0]) == (pytest.approx(1 / 3), pytest.approx(0.5))


def test_a_change_changes_what_it_says_and_nothing_else(tmp_path):
    plain = build_population(scenario_of(tmp_path))
    fast = build_population(scenario_of(tmp_path, fleet__perturb__compute="2"))
    dealt = build_population(scenario_of(tmp_path, fleet__perturb__resample="1"))
    assert (fast.compute_flops == 2 * plain.compute_flops).all()
    assert (fast.memory_bytes == plain.memory_bytes).all()
    assert (dealt.compute_flops == plain.compute_flops).all()
    again = build_population(scenario_of(tmp_path, fleet__perturb__resample="1"))
    assert np.array_equal(dealt.connections.offset_s, again.connections.offset_s)


@pytest.mark.slow
def test_the_whole_way_with_the_stub(tmp_path):
    path = write_world(tmp_path)
    shared = {"executor.kind": "stub", "stop.rounds": "1", "method.options": "{}"}
    request = Request(path, "fedhera,flexlora", "0", tmp_path / "out", overrides=shared)
    found = sensitivity(request, ["compute=0.5"])
    assert found.figure == "virtual_s"
    plain, slow = (outcome.means for outcome in found.outcomes)
    assert all(slow[method] > plain[method] for method in plain)
    assert json.loads((tmp_path / "out" / "sensitivity.json").read_text())["figure"] == "virtual_s"
    assert (tmp_path / "out" / "sensitivity.csv").read_text().startswith("change,winner,kendall,spearman")
    page = (tmp_path / "out" / "sensitivity.html").read_text()
    assert "compute=0.5" in page
    assert "<strong>STUB</strong>" in page
