"""A run whose clients share passes: its own record, whoever trains and whatever kills it."""

import json

import pytest

import fedsim
from fedsim.errors import InputError, ScenarioError
from fedsim.experiment.retrain import retrain
from fedsim.experiment.verify import Verdict, verify
from tests import audit, kills

BATCHED = {
    **kills.SHORT,
    "stop.rounds": "2",
    "server.cohort": "4",
    "evaluation.every": "2",
    "executor.batch_clients": "2",
}


class BombError(Exception):
    """Goes off while updates are kept."""


def scenario(**changes):
    return fedsim.load_scenario(kills.SCENARIO, {**BATCHED, **changes})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("batched") / "run"
    fedsim.run(scenario(), directory, report=False)
    return directory


def losses(directory):
    events = audit.read_events(directory)
    return [loss for line in audit.of(events, "aggregated") for loss in line["losses"].values()]


def killed_with(kept, directory, monkeypatch):
    """Run until so many updates are in the journal; the group of the last is half there."""
    from fedsim.experiment.journaled import Journaled

    original, seen = Journaled.done, []

    def mortal(self, request, answer):
        if len(seen) == kept:
            raise BombError
        seen.append(request.assignment.id)
        original(self, request, answer)

    monkeypatch.setattr(Journaled, "done", mortal)
    with pytest.raises(BombError):
        fedsim.run(scenario(), directory, report=False)
    monkeypatch.undo()
    return seen


def test_a_group_of_which_half_is_kept_is_trained_again_as_a_whole(whole, tmp_path, monkeypatch):
    seen = killed_with(3, tmp_path / "run", monkeypatch)
    index = (tmp_path / "run" / "journal" / "index.jsonl").read_text().splitlines()
    assert [json.loads(line)["number"] for line in index if '"update"' in line] == seen
    fedsim.resume(tmp_path / "run", report=False)
    assert kills.fingerprint(tmp_path / "run") == kills.fingerprint(whole)
    assert verify(tmp_path / "run").findings == []


@pytest.mark.slow
def test_a_lost_update_is_trained_again_with_its_group(whole, tmp_path, monkeypatch):
    killed_with(3, tmp_path / "run", monkeypatch)
    for path in (tmp_path / "run" / "journal" / "objects").iterdir():
        path.unlink()
    fedsim.resume(tmp_path / "run", report=False)
    assert kills.fingerprint(tmp_path / "run") == kills.fingerprint(whole)


async def test_a_verified_sample_is_trained_again_with_its_groups(whole):
    verdict = Verdict()
    await retrain(whole, 3, verdict)
    assert verdict.findings == []
    assert verdict.counts["retrained updates"] == 3


@pytest.mark.slow
def test_losses_are_those_of_one_by_one_up_to_rounding(whole, tmp_path):
    fedsim.run(scenario(**{"executor.batch_clients": "1"}), tmp_path / "run", report=False)
    found, expected = losses(whole), losses(tmp_path / "run")
    assert len(found) == len(expected) == 8
    assert found == pytest.approx(expected, abs=1e-4)


def test_the_number_shows_in_hash_and_manifest_and_cannot_change(whole, tmp_path):
    from fedsim.experiment.resume import scenario_of

    one = scenario(**{"executor.batch_clients": "1"})
    assert scenario().scenario_hash != one.scenario_hash
    assert scenario(**{"executor.workers": "7"}).scenario_hash == scenario().scenario_hash
    assert json.loads((whole / "manifest.json").read_text())["batch_clients"] == 2
    with pytest.raises(InputError, match=r"executor\.batch_clients: cannot change when a run goes on"):
        scenario_of(whole, {"executor.batch_clients": "4"})
    with pytest.raises(InputError, match=r"executor: cannot change when a run goes on"):
        scenario_of(whole, {"executor": "{kind: inline}"})
    with pytest.raises(InputError, match="batch_clients: began as 2, is None now"):
        fedsim.resume(whole, one)


@pytest.mark.parametrize("value", ["0", "true", "many", "2.5", "1025"])
def test_a_number_that_is_none_is_refused(value):
    with pytest.raises(
        ScenarioError, match=r"executor\.batch_clients: expected auto or a whole number from 1"
    ):
        scenario(**{"executor.batch_clients": value})


@pytest.mark.parametrize("value", ["2", "auto"])
def test_training_ahead_knows_no_groups_and_is_refused(value):
    with pytest.raises(ScenarioError, match=r"executor\.batch_clients: needs executor\.prefetch: none"):
        scenario(**{"executor.batch_clients": value, "executor.prefetch": "speculative"})


@pytest.mark.slow
def test_any_number_of_workers_gives_the_same_record(whole, tmp_path):
    for workers in ("1", "2"):
        changes = {"executor.kind": "workers", "executor.workers": workers}
        fedsim.run(scenario(**changes), tmp_path / workers, report=False)
        assert kills.fingerprint(tmp_path / workers) == kills.fingerprint(whole)


@pytest.mark.slow
def test_tuning_measures_every_group_size_and_pins_one(capsys):
    from fedsim.cli.main import main

    sets = [word for key, value in BATCHED.items() for word in ("--set", f"{key}={value}")]
    with pytest.raises(SystemExit) as end:
        main(["tune-batch", str(kills.SCENARIO), *sets, "--repeats", "1", "--json"])
    assert end.value.code in {0, None}
    found = json.loads(capsys.readouterr().out)
    assert [row["clients"] for row in found["measured"]] == [1, 2, 4]
    assert all(row["step_s"] > 0 for row in found["measured"])
    assert found["batch_clients"] in {1, 2, 4}
