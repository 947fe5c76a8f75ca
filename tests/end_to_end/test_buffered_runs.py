"""Runs without rounds: the same record however they are carried out, audited from outside."""

import json
from pathlib import Path

import pytest

import fedsim
from tests import audit

ROOT = Path(__file__).parents[2]
SCENARIO = ROOT / "scenarios" / "buffered_phones.yaml"
SHORT = {
    "executor.kind": "inline",
    "stop.rounds": "4",
    "training.local_steps": "2",
    "server.concurrency": "6",
    "server.buffer": "3",
    "evaluation.every": "2",
    "evaluation.held_out_examples": "16",
    "evaluation.generate": "0",
}
LONG = {
    "executor.kind": "stub",
    "model.targets": "attention",
    "model.stands_for": "null",
    "fleet.bandwidth_scale": "0.001",
    "method.options": "{rank_cap: 8, initial_rank: 4}",
    "server.select": "uniform",
    "server.concurrency": "100",
    "server.buffer": "50",
    "server.deadline": "null",
    "server.replan": "false",
    "server.progress_every": "10 min",
    "server.initial_down_mbps": "0.02",
    "server.initial_up_mbps": "0.02",
    "stop.rounds": "200",
    "stop.hours": "null",
    "evaluation.every": "1000",
}


def play(directory, overrides, **changes):
    more = {key.replace("__", "."): value for key, value in changes.items()}
    return fedsim.run(fedsim.load_scenario(SCENARIO, {**overrides, **more}), directory, report=False)


@pytest.fixture(scope="module")
def inline(tmp_path_factory):
    return play(tmp_path_factory.mktemp("inline") / "run", SHORT)


def test_versions_are_mixed_and_the_loss_falls(inline):
    events = audit.read_events(inline.directory)
    assert any(tau for line in audit.of(events, "aggregating") for tau in line["staleness"])
    rows = inline.evaluations
    assert rows[-1]["version"] == 4
    assert rows[-1]["loss"] < rows[0]["loss"]


@pytest.mark.slow  # with rounds it is checked in test_real_training
@pytest.mark.parametrize("workers", ["1", "2"])
def test_workers_give_the_same_record(inline, tmp_path, workers):
    spread = play(tmp_path / "spread", SHORT, executor__kind="workers", executor__workers=workers)
    assert spread.record_hash == inline.record_hash
    ours = (spread.directory / "adapter" / "adapter_model.safetensors").read_bytes()
    assert ours == (inline.directory / "adapter" / "adapter_model.safetensors").read_bytes()


@pytest.mark.slow
def test_training_everything_at_once_gives_the_same_record(inline, tmp_path):
    eager = play(tmp_path / "eager", SHORT, executor__prefetch="speculative")
    assert eager.record_hash == inline.record_hash


@pytest.mark.slow
def test_oort_learns_from_losses_and_still_gives_one_record(tmp_path):
    first, again = (
        play(tmp_path / name, SHORT, server__select="oort", executor__prefetch=prefetch)
        for name, prefetch in (("lazy", "none"), ("eager", "speculative"))
    )
    assert first.record_hash == again.record_hash


@pytest.mark.parametrize("pacing", ["buffered", "async", "semi_sync"])
def test_the_record_keeps_its_books(tmp_path, pacing):
    changes = {"executor.kind": "stub", "server.pacing": pacing}
    if pacing == "async":
        changes |= {"server.buffer": "null"}
    if pacing == "semi_sync":
        changes |= {
            "server.buffer": "null",
            "server.concurrency": "null",
            "server.cohort": "8",
            "server.over_selection": "1.5",
            "server.deadline": "15 min",
            "stop.rounds": "12",
        }
    result = play(tmp_path / "run", changes)
    events = audit.read_events(result.directory)
    summary = json.loads((result.directory / "summary.json").read_text())
    audit.check_order(events)
    audit.check_outcomes(events)
    audit.check_bytes(events, summary)
    fleet = audit.Fleet(ROOT / "traces" / "skewed_edge", 20 * 3600.0)
    audit.check_presence(events, fleet)
    audit.check_budgets(events, json.loads((result.directory / "manifest.json").read_text()), fleet)
    assert any(tau for line in audit.of(events, "aggregating") for tau in line["staleness"])
    assert sum(part["devices"] for part in summary["fairness"]["by_class"].values()) == 200


@pytest.mark.parametrize("updates", [250, pytest.param(10_000, marks=pytest.mark.slow)])
def test_two_long_runs_give_one_record(tmp_path, updates):
    changes = LONG | {"stop.rounds": str(updates // 50)}
    first, again = (play(tmp_path / name, changes) for name in ("first", "again"))
    assert first.tally.events["dispatched"] > updates
    assert first.record_hash == again.record_hash
    assert first.tally.outcomes["aggregated"] == updates
