"""Runs with clients that send the wrong thing, or that noise hides: same end after a crash, and sound."""

import importlib.util
import json
from pathlib import Path

import pytest

import fedsim
from fedsim.experiment.retrain import retrain
from fedsim.experiment.verify import Verdict, verify
from tests import kills

FAULTY = Path(__file__).parents[2] / "scenarios" / "faulty_clients.yaml"
QUICK = {**kills.SHORT, "stop.rounds": "2", "server.cohort": "4", "faults.share": "0.4"}
PRIVATE = {
    **QUICK,
    "faults": "null",
    "server.robust": "null",
    "privacy.clip": "0.5",
    "privacy.noise_multiplier": "1.0",
    "method.options.rank_cap": "4",
    "method.options.initial_rank": "4",
}


class BombError(Exception):
    """Goes off in an observer."""


class Bomb:
    """Ends a run after it has made a version."""

    def observe(self, time_s, event, fields):
        if event == "aggregated":
            raise BombError


def defences(directory):
    lines = [json.loads(line) for line in (directory / "events.jsonl").read_text().splitlines()]
    return [line["defence"] for line in lines if "defence" in line]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(QUICK, marks=pytest.mark.slow),
        pytest.param(
            PRIVATE,
            marks=pytest.mark.skipif(
                importlib.util.find_spec("dp_accounting") is None, reason="the extra privacy is missing"
            ),
        ),
    ],
    ids=["robust", "private"],
)
async def test_a_guarded_run_can_crash_and_tells_the_truth(tmp_path, changes):
    scenario = fedsim.load_scenario(FAULTY, changes)
    whole = await fedsim.arun(scenario, tmp_path / "whole", report=False)
    with pytest.raises(BombError):
        await fedsim.arun(scenario, tmp_path / "run", instruments=[Bomb()], report=False)
    fedsim.resume(tmp_path / "run", report=False)
    assert kills.fingerprint(tmp_path / "run") == kills.fingerprint(tmp_path / "whole")
    assert verify(tmp_path / "run").findings == []
    verdict = Verdict()
    await retrain(tmp_path / "run", 1, verdict)
    assert verdict.findings == []
    told = defences(tmp_path / "whole")
    assert len(told) == 2
    assert any(factor < 1.0 for defence in told for factor in defence["counted"].values())
    if "privacy.clip" in changes:
        assert whole.privacy["releases"] == 2
        assert whole.privacy["epsilon"] > 0.0
        assert json.loads((tmp_path / "run" / "summary.json").read_text())["privacy"] == dict(whole.privacy)


def test_numbers_that_are_none_are_never_aggregated_and_are_named(tmp_path):
    changes = {**QUICK, "faults.sends": "non_finite", "faults.factor": "null", "server.robust": "null"}
    result = fedsim.run(fedsim.load_scenario(FAULTY, changes), tmp_path / "run", report=False)
    lines = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    failed = [line for line in lines if line["event"] == "settled" and line["outcome"] == "failed"]
    assert failed
    assert {line["reason"] for line in failed} == {"non-finite update"}
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert {line["client"] for line in failed} <= set(manifest["faulty_clients"])
    assert result.tally.outcomes["failed"] == len(failed)
    assert all(row["loss"] < 10.0 for row in result.evaluations)
