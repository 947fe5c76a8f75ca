"""Streams and parts of updates with real training: one record however it is carried out, sound throughout."""

from pathlib import Path

import pytest

import fedsim
from fedsim.errors import ScenarioError
from fedsim.experiment.verify import verify
from tests import audit, kills
from tests.end_to_end.test_resume import Bomb, BombError

SCENARIO = Path(__file__).parents[2] / "scenarios" / "flaky_lte.yaml"
SHORT = {
    "stop.hours": "0.5",
    "training.local_steps": "2",
    "server.concurrency": "6",
    "server.buffer": "3",
    "server.deadline": "8 min",
    "server.staleness": "{kind: polynomial, exponent: 0.5, subspace: true}",
    "evaluation.held_out_examples": "16",
}


def play(directory, **changes):
    more = {key.replace("__", "."): value for key, value in changes.items()}
    return fedsim.run(fedsim.load_scenario(SCENARIO, {**SHORT, **more}), directory, report=False)


@pytest.fixture(scope="module")
def inline(tmp_path_factory):
    return play(tmp_path_factory.mktemp("inline") / "run")


def test_clients_train_with_what_has_come_and_parts_of_updates_count(inline):
    events = audit.read_events(inline.directory)
    plans = {line["plan"]: line for line in audit.of(events, "plan")}
    windows = [line for line in audit.of(events, "replanned") if line["reason"] == "window"]
    assert windows
    for line in windows:
        old, new = plans[line["old_plan"]]["total"], plans[line["new_plan"]]["total"]
        assert new == line["received"]
        assert sum(new) < sum(old)
    cut = {line["assignment"] for line in audit.of(events, "uploaded") if "cut" in line}
    counted = {
        int(number): ranks
        for line in audit.of(events, "aggregated")
        for number, ranks in line.get("arrived", {}).items()
    }
    assert counted
    assert set(counted) <= cut
    started = {line["assignment"]: plans[line["plan"]] for line in audit.of(events, "training_started")}
    for number, ranks in counted.items():
        assert 0 < sum(ranks) <= sum(started[number]["trained"])
    assert inline.evaluations[-1]["loss"] < inline.evaluations[0]["loss"]


def test_the_record_is_sound(inline):
    verdict = verify(inline.directory)
    assert verdict.findings == []
    assert verdict.counts["budgets"] > verdict.counts["assignments"]


@pytest.mark.slow
def test_workers_and_eager_training_give_the_same_record(inline, tmp_path):
    spread = play(
        tmp_path / "spread", executor__kind="workers", executor__workers="2", executor__prefetch="speculative"
    )
    assert spread.record_hash == inline.record_hash
    ours = (spread.directory / "adapter" / "adapter_model.safetensors").read_bytes()
    assert ours == (inline.directory / "adapter" / "adapter_model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_run_that_crashes_ends_as_if_it_had_not(inline, tmp_path):
    lines = len((inline.directory / "events.jsonl").read_bytes().splitlines())
    scenario = fedsim.load_scenario(SCENARIO, SHORT)
    with pytest.raises(BombError):
        fedsim.run(scenario, tmp_path / "run", instruments=[Bomb(2 * lines // 3)])
    fedsim.resume(tmp_path / "run", report=False)
    assert kills.fingerprint(tmp_path / "run") == kills.fingerprint(inline.directory)
    assert verify(tmp_path / "run").findings == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method.name": "fedhl", "method.options": "null"}, "server.delivery: the method fedhl needs"),
        ({"method.options": "{overflow: skip}"}, "set method.options.overflow to break"),
        (
            {"method.name": "fedhl", "method.options": "null", "server.delivery": "planned"},
            "server.upload: the method fedhl needs whole",
        ),
        (
            {"method.options": "{overflow: break, tail: returned_gated}"},
            "server.upload: the method fedhera needs whole",
        ),
    ],
)
def test_methods_that_cannot_use_a_part_are_refused_with_the_reason(changes, message, tmp_path):
    scenario = fedsim.load_scenario(SCENARIO, {**SHORT, "executor.kind": "stub", **changes})
    with pytest.raises(ScenarioError, match=message):
        fedsim.run(scenario, tmp_path / "run")
