"""What leaves a run: its adapter with a card, the merged model, and how either is measured."""

import csv
import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

import fedsim
from fedsim.cli.main import app
from fedsim.errors import FedsimError
from fedsim.experiment.scenario import load_scenario
from fedsim.learn.model import load_model

SCENARIO = Path(__file__).parents[2] / "scenarios" / "skewed_edge.yaml"
SMALL = {
    "executor.kind": "inline",
    "stop.rounds": "1",
    "server.cohort": "2",
    "server.min_updates": "1",
    "training.local_steps": "2",
    "evaluation.held_out_examples": "8",
    "evaluation.generate": "4",
    "evaluation.max_new_tokens": "8",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters") / "run"
    fedsim.run(load_scenario(SCENARIO, SMALL), folder, report=False)
    return folder


def invoke(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=True)


def measured(*arguments):
    shown = invoke("eval", *arguments, "--json")
    assert shown.exception is None, shown.exception
    return json.loads(shown.stdout)


def last_row(run):
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))[-1]


def test_the_card_tells_where_an_adapter_comes_from(run):
    card = (run / "adapter" / "README.md").read_text()
    manifest = json.loads((run / "manifest.json").read_text())
    assert card.startswith('---\nbase_model: "embedded"\nlibrary_name: peft\n')
    assert manifest["scenario_sha256"] in card
    assert f"| loss | {float(first_row(run)['loss']):.4f} | {float(last_row(run)['loss']):.4f} |" in card
    assert json.loads((run / "summary.json").read_text())["record_sha256"] in card
    assert invoke("verify", run).exit_code == 0


def first_row(run):
    with (run / "metrics.csv").open(newline="") as file:
        return next(csv.DictReader(file))


def test_what_a_run_measured_is_measured_again(run):
    found = measured(run, "--with-base")
    assert found["examples"] == 8
    for name in ("loss", "token_accuracy", "rouge_l"):
        assert found["measured"]["adapter"][name] == float(last_row(run)[name])
        assert found["measured"]["base"][name] == float(first_row(run)[name])
    assert "loss" in invoke("eval", run).stdout


def test_an_adapter_is_measured_on_another_task(run, tmp_path):
    rows = [{"text": f"Fox {i}", "label": ["good", "bad"][i % 2]} for i in range(6)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ["--task", "text_classification", "--data", tmp_path / "rows.jsonl", "--examples", 4]
    found = measured(run / "adapter", *asked)
    assert (found["base"], found["task"], found["examples"]) == ("embedded", "text_classification", 4)
    assert set(found["measured"]["adapter"]) == {"loss", "token_accuracy", "option_accuracy"}
    own = measured(
        run / "adapter", "--task", "embedded", "--examples", 8, "--generate", 0, "--max-length", 64
    )
    assert own["measured"]["adapter"]["loss"] == float(last_row(run)["loss"])


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["{adapter}"], "--task: expected the name of a task"),
        (["{adapter}", "--task", "poetry"], "--task: expected one of embedded, e2e_nlg"),
        (["{adapter}", "--task", "piqa"], "--data: expected the file of the task piqa"),
        (["{adapter}", "--task", "embedded", "--set", "seed=1"], "--set: an adapter has no scenario"),
        (["{adapter}", "--task", "embedded", "--max-length", "512"], "has 256 positions"),
        (["{run}", "--examples", "3"], "--data and --examples need it"),
        (["{nothing}"], "expected the folder of a run or of a PEFT adapter, found neither"),
    ],
)
def test_what_cannot_be_measured_is_refused(run, tmp_path, arguments, match):
    places = {"run": run, "adapter": run / "adapter", "nothing": tmp_path}
    shown = invoke("eval", *(word.format_map(places) for word in arguments))
    assert isinstance(shown.exception, FedsimError)
    assert match in str(shown.exception)


def test_the_merged_model_speaks_like_base_and_adapter(run, tmp_path):
    assert invoke("export", run, "--merge", "--out", tmp_path / "merged").exit_code == 0
    assert invoke("export", run, "--out", tmp_path / "plain").exit_code == 0
    base = load_model("embedded", "cpu")
    ids = base.tokenizer("name[Blue Lion], food[Thai] =>", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        before = base.model(ids).logits
        adapted = PeftModel.from_pretrained(base.model, tmp_path / "plain").eval()(ids).logits
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()(ids).logits
    assert (adapted - before).abs().max() > 1e-3
    torch.testing.assert_close(merged, adapted, rtol=1e-4, atol=1e-4)
    assert sorted(path.name for path in (tmp_path / "plain").iterdir()) == sorted(
        path.name for path in (run / "adapter").iterdir()
    )
    assert (tmp_path / "merged" / "README.md").is_file()
    assert not (tmp_path / "merged" / "adapter_config.json").exists()


def test_nothing_is_overwritten(run, tmp_path):
    shown = invoke("export", run, "--out", tmp_path)
    assert "expected a new folder" in str(shown.exception)


def test_a_stub_has_no_adapter_to_export(tmp_path):
    stub = load_scenario(SCENARIO, {**SMALL, "executor.kind": "stub"})
    fedsim.run(stub, tmp_path / "run", report=False)
    assert "a stub trains nothing" in str(invoke("export", tmp_path / "run").exception)
