"""Loss, ROUGE-L and drift of a small fixed run of the default scenario stay where they were."""

import json
from pathlib import Path

import pytest

import fedsim
from tests import audit

SCENARIO = Path(__file__).parents[2] / "scenarios" / "skewed_edge.yaml"
GOLDEN = Path(__file__).parent / "goldens" / "small_run.json"
RUN = {
    "executor.kind": "inline",
    "stop.rounds": "2",
    "training.local_steps": "4",
    "server.cohort": "3",
    "evaluation.every": "2",
    "evaluation.held_out_examples": "32",
    "evaluation.generate": "8",
    "evaluation.max_new_tokens": "32",
    "measure.drift": "{clients: 2, every: 1}",
}
# Another CPU rounds otherwise; a token that flips moves ROUGE-L of eight texts by more than a loss moves.
RELATIVE = {"loss": 0.01, "rouge_l": 0.05, "drift": 0.03}


def test_figures_are_those_of_the_golden(tmp_path, write_goldens):
    result = fedsim.run(fedsim.load_scenario(SCENARIO, RUN), tmp_path / "run", report=False)
    measured = audit.of(audit.read_events(result.directory), "measured")
    drift = {name: value for name, value in measured[-1]["means"].items() if "drift" in name}
    assert len(drift) == 3
    last = result.evaluations[-1]
    found = {"loss": last["loss"], "rouge_l": last["rouge_l"], **drift}
    if write_goldens:
        GOLDEN.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")
    golden = json.loads(GOLDEN.read_text())
    assert set(found) == set(golden)
    for name, value in found.items():
        assert value == pytest.approx(golden[name], rel=RELATIVE.get(name, RELATIVE["drift"])), name
