"""What `fedsim check --preview` says is what the run then does, and what it takes is measured."""

import json

import pytest

import fedsim
from fedsim.cli import main
from tests import kills

SHORT = {**kills.SHORT, "stop.rounds": "2"}


def words(changes):
    return [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]


def previewed(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(["check", str(kills.SCENARIO), "--preview", *arguments])
    assert ended.value.code in {0, None}
    return capsys.readouterr().out


def test_the_dry_run_is_the_stub_run(tmp_path, capsys):
    stub = {**SHORT, "executor.kind": "stub"}
    told = json.loads(previewed(capsys, "--json", *words(stub)))
    result = fedsim.run(fedsim.load_scenario(kills.SCENARIO, stub), tmp_path / "run", report=False)
    assert told["ends"] == result.reason
    assert told["virtual_s"] == result.virtual_s
    assert told["outcomes"] == dict(result.tally.outcomes)
    assert (told["bytes_down"], told["bytes_up"]) == (result.tally.bytes_down, result.tally.bytes_up)
    assert told["wall_s"] is None
    assert "this scenario trains nothing" in previewed(capsys, *words(stub))


@pytest.mark.slow
def test_time_is_reckoned_from_real_steps(capsys):
    told = json.loads(previewed(capsys, "--json", *words({**SHORT, "measure.drift.clients": "1"})))
    work, measured = told["work"], told["measured"]
    assert (work["updates"], work["oracles"], work["steps"], work["aggregations"]) == (6, 2, 2, 2)
    assert measured["sampled"] == 3
    assert measured["core_share"] > 0.0
    training_s = 8 * (measured["update_s"] + 2 * measured["step_s"])
    rest_s = (
        measured["build_s"] + 2 * measured["aggregation_s"] + work["evaluations"] * measured["evaluation_s"]
    )
    assert told["wall_s"] == pytest.approx(training_s + rest_s)
    said = previewed(capsys, *words({**SHORT, "executor.kind": "workers"}))
    assert "how long it takes: about" in said
    assert "spread over 2 processes" in said
