"""Measuring drift leaves a run as it is: same events, same adapter, more columns."""

import csv
import json
from pathlib import Path

import pytest

import fedsim

SCENARIO = Path(__file__).parents[2] / "scenarios/bandwidth_rich_compute_poor.yaml"
SMALL = {
    "stop.rounds": "2",
    "server.cohort": "2",
    "training.local_steps": "2",
    "evaluation.held_out_examples": "8",
    "evaluation.generate": "0",
}
DRIFT = {"measure.drift": "{clients: 1, oracle_rank: 16, definition: [fedsim, paper]}"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("measuring")
    chosen = {
        "plain": SMALL,
        "measured": SMALL | DRIFT,
    }
    return {
        name: fedsim.run(fedsim.load_scenario(SCENARIO, values), folder / name, report=False).directory
        for name, values in chosen.items()
    }


def lines(directory, event=None):
    found = (directory / "events.jsonl").read_text().splitlines()
    return [line for line in found if (json.loads(line)["event"] == "measured") == (event == "measured")]


def test_everything_but_the_measured_lines_is_the_same(runs):
    assert lines(runs["plain"]) == lines(runs["measured"])
    assert lines(runs["plain"], "measured") == []
    weights = "adapter/adapter_model.safetensors"
    assert (runs["plain"] / weights).read_bytes() == (runs["measured"] / weights).read_bytes()


def test_every_version_is_measured_and_the_means_stand_in_the_metrics(runs):
    measured = [json.loads(line) for line in lines(runs["measured"], "measured")]
    assert [line["version"] for line in measured] == [1, 2]
    assert measured[0]["means"]["paper_absolute_drift"] is None
    for figure in ("absolute_drift", "cross_client_drift", "update_norm", "effective_rank", "alignment"):
        assert all(line["means"][figure] is not None for line in measured)
    with (runs["measured"] / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["paper_relative_drift"]) == measured[1]["means"]["paper_relative_drift"]
    assert rows[0]["absolute_drift"] == ""
    assert "absolute_drift" not in (runs["plain"] / "metrics.csv").read_text()


@pytest.mark.slow
def test_an_eager_run_measures_the_same(runs, tmp_path):
    values = SMALL | DRIFT | {"executor.prefetch": "speculative"}
    fedsim.run(fedsim.load_scenario(SCENARIO, values), tmp_path / "eager", report=False)
    assert lines(tmp_path / "eager", "measured") == lines(runs["measured"], "measured")


def test_the_summary_says_how_full_the_budgets_were(runs):
    used = json.loads((runs["plain"] / "summary.json").read_text())["utilisation"]
    assert used["assignments"] == 4
    for budget in ("download_bytes", "memory_bytes", "seconds"):
        assert 0.0 < used[budget]["mean"] <= 1.0
    assert used["mean_memory_bytes"] > 3.5e9, "the frozen base counts"
