"""The default scenario over three seeds: what the shipped traces alone make happen, audited from outside."""

import json
from pathlib import Path

import pytest

import fedsim
from tests import audit

ROOT = Path(__file__).parents[2]
SCENARIO = ROOT / "scenarios" / "skewed_edge.yaml"
START_S = 20 * 3600.0
SEEDS = ("0", "1", "2")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One record per seed; nothing is trained, since the clock does not depend on it."""
    folder = tmp_path_factory.mktemp("runs")
    results = {}
    for seed in SEEDS:
        scenario = fedsim.load_scenario(SCENARIO, {"seed": seed, "executor.kind": "stub"})
        assert scenario.fleet.start_s == START_S
        results[seed] = fedsim.run(scenario, folder / seed, report=False).directory
    return results


@pytest.fixture(scope="module")
def fleet():
    return audit.Fleet(ROOT / "traces" / "skewed_edge", START_S)


def load(directory):
    return (
        audit.read_events(directory),
        json.loads((directory / "manifest.json").read_text()),
        json.loads((directory / "summary.json").read_text()),
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_the_record_keeps_its_books(runs, fleet, seed):
    events, manifest, summary = load(runs[seed])
    audit.check_order(events)
    audit.check_outcomes(events)
    audit.check_bytes(events, summary)
    audit.check_budgets(events, manifest, fleet)
    audit.check_presence(events, fleet)


def test_traces_alone_bring_arrivals_drops_delays_and_replans(runs):
    phases = set()
    for seed in SEEDS:
        events, _, summary = load(runs[seed])
        settled = audit.of(events, "settled")
        outcomes = {event["outcome"] for event in settled}
        assert audit.of(events, "arrived")
        assert audit.of(events, "departed")
        assert outcomes >= {"aggregated", "dropped"}
        assert outcomes & {"timed_out", "late"}
        assert audit.of(events, "replanned")
        assert len(summary["aggregated_by_class"]) > 1
        phases |= {event["phase"] for event in settled if event["outcome"] == "dropped"}
    assert len(phases) >= 2


def test_another_seed_asks_another_first_cohort(runs):
    cohorts = []
    for seed in SEEDS:
        dispatched = audit.of(load(runs[seed])[0], "dispatched")
        cohorts.append(tuple(event["client"] for event in dispatched if event["time_s"] == 0.0))
    assert len(set(cohorts)) == len(SEEDS)


def test_a_replan_says_old_and_new_ranks_and_why(runs):
    events, _, _ = load(runs["0"])
    plans = {event["plan"]: event for event in audit.of(events, "plan")}
    for event in audit.of(events, "replanned"):
        assert event["old_plan"] != event["new_plan"]
        assert {event["old_plan"], event["new_plan"]} <= set(plans)
        assert event["reason"] in {"bandwidth", "memory", "compute"}


def test_every_dispatched_client_is_online_and_idle(runs, fleet):
    events, _, _ = load(runs["0"])
    busy = {}
    for event in events:
        if event["event"] == "dispatched":
            assert event["client"] not in busy.values()
            busy[event["assignment"]] = event["client"]
        elif event["event"] == "settled":
            del busy[event["assignment"]]
