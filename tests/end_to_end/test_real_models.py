"""The scenarios with a real model on real data: checked always, run where model and samples are there."""

import csv
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

import fedsim
from fedsim.cli.main import app
from fedsim.errors import ScenarioError
from fedsim.experiment.learning_sections import EMBEDDED
from fedsim.experiment.scenario import load_scenario
from fedsim.learn.model_files import SMOLLM2, cache_folder

ROOT = Path(__file__).parents[2]
REAL = Path(os.environ.get("FEDSIM_REAL_DATA", ROOT.parent / "shared" / "data_real"))
REAL_MODELS = sorted(
    path for path in (ROOT / "scenarios").glob("*.yaml") if load_scenario(path).model.base != EMBEDDED
)
E2E = {"task.train": "e2e/devset.csv", "task.held_out": "e2e/testset_w_refs.csv"}
HELLASWAG = {"task.train": "hellaswag/hellaswag_val_full.txt.bz2"}

NO_DATA = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real data in {REAL}; set FEDSIM_REAL_DATA")
NO_MODEL = pytest.mark.skipif(
    not (cache_folder() / "models" / SMOLLM2 / "config.json").is_file(),
    reason="smollm2 is not in the cache; fetch it with: fedsim models smollm2 --fetch",
)


def scenario(name, files, **changes):
    here = {key: str(REAL / path) for key, path in files.items()}
    return load_scenario(ROOT / "scenarios" / f"{name}.yaml", {**here, **changes})


def rows(directory):
    with (directory / "metrics.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def test_there_are_three():
    assert [path.stem for path in REAL_MODELS] == ["llama_8gpu", "smollm2_e2e", "smollm2_hellaswag"]


@pytest.mark.parametrize("path", REAL_MODELS, ids=lambda path: path.stem)
def test_check_needs_files_and_no_model(path, tmp_path):
    (tmp_path / "rows").touch()
    asked = load_scenario(path)
    files = [f"--set=task.train={tmp_path / 'rows'}"]
    files += [f"--set=task.held_out={tmp_path / 'rows'}"] if asked.task.held_out else []
    shown = CliRunner().invoke(app, ["check", str(path), *files], catch_exceptions=False)
    assert shown.exit_code == 0
    assert f'base: "{asked.model.base}"' in shown.stdout


@pytest.mark.parametrize("path", REAL_MODELS, ids=lambda path: path.stem)
def test_missing_data_are_named(path, tmp_path):
    nowhere = f"--set=task.train={tmp_path / 'rows'}"
    shown = CliRunner().invoke(app, ["check", str(path), nowhere], catch_exceptions=True)
    assert isinstance(shown.exception, ScenarioError)
    assert "task.train: no such file" in str(shown.exception)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smollm2_e2e", "smollm2_hellaswag"])
@NO_DATA
@NO_MODEL
def test_ranks_differ_and_nobody_is_refused(name, tmp_path):
    files = E2E if name == "smollm2_e2e" else HELLASWAG
    fedsim.run(scenario(name, files, **{"executor.kind": "stub"}), tmp_path / "run", report=False)
    run = fedsim.load_run(tmp_path / "run")
    assert run.assignments["mean_total"].nunique() > 3
    assert (run.assignments["mean_trained"] < run.assignments["mean_total"]).any()
    assert run.summary["outcomes"]["aggregated"] >= 6


@pytest.mark.slow
@NO_DATA
@NO_MODEL
def test_the_global_adapter_learns_to_describe_restaurants(tmp_path):
    """Smaller than the shipped scenario; its own numbers are in docs/results-smollm2.md."""
    small = {
        "stop.rounds": "2",
        "server.cohort": "3",
        "evaluation.held_out_examples": "16",
        "evaluation.generate": "8",
    }
    fedsim.run(scenario("smollm2_e2e", E2E, **small), tmp_path / "run", report=False)
    base, *_, last = rows(tmp_path / "run")
    assert last["loss"] < 0.9 * base["loss"]
    assert last["rouge_l"] > base["rouge_l"]
