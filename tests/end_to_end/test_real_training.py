"""Short runs with real gradients: one record however it is carried out, and an adapter that PEFT loads."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

import fedsim
from fedsim.experiment.retrain import retrain
from fedsim.experiment.verify import Verdict
from fedsim.learn.encode import collate, encode
from fedsim.learn.model import load_model, resolve_source
from tests import audit

ROOT = Path(__file__).parents[2]
SCENARIO = ROOT / "scenarios" / "skewed_edge.yaml"
SHORT = {
    "executor.kind": "inline",
    "stop.rounds": "2",
    "training.local_steps": "3",
    "server.cohort": "3",
    "evaluation.every": "1",
    "evaluation.held_out_examples": "16",
    "evaluation.generate": "2",
    "evaluation.max_new_tokens": "8",
}


def real_data():
    return Path(os.environ.get("FEDSIM_REAL_DATA", ROOT.parent / "shared" / "data_real"))


def real_traces():
    return Path(os.environ.get("FEDSIM_REAL_TRACES", ROOT.parent / "shared" / "traces_real"))


def short_run(directory, **changes):
    overrides = {**SHORT, **{key.replace("__", "."): value for key, value in changes.items()}}
    return fedsim.run(fedsim.load_scenario(SCENARIO, overrides), directory, report=False)


@pytest.fixture(scope="module")
def inline(tmp_path_factory):
    return short_run(tmp_path_factory.mktemp("inline") / "run")


def losses(result):
    return [row["loss"] for row in result.evaluations]


def test_loss_falls_below_the_base(inline):
    assert inline.evaluations[0]["version"] == 0
    assert losses(inline)[-1] < losses(inline)[0]
    header = (inline.directory / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"version", "time_s", "loss", "token_accuracy", "rouge_l"} <= set(header)


def test_repeating_gives_the_same_record(inline, tmp_path):
    again = short_run(tmp_path / "again")
    assert (again.directory / "events.jsonl").read_bytes() == (inline.directory / "events.jsonl").read_bytes()


def kept_updates(directory):
    lines = map(json.loads, (directory / "journal" / "index.jsonl").read_text().splitlines())
    return {line["number"]: line["content"] for line in lines if line.get("kind") == "update"}


@pytest.mark.parametrize("workers", [pytest.param("1", marks=pytest.mark.slow), "2"])
def test_workers_give_the_same_record(inline, tmp_path, workers):
    spread = short_run(tmp_path / "spread", executor__kind="workers", executor__workers=workers)
    assert spread.record_hash == inline.record_hash
    assert kept_updates(spread.directory) == kept_updates(inline.directory)
    ours = (spread.directory / "adapter" / "adapter_model.safetensors").read_bytes()
    assert ours == (inline.directory / "adapter" / "adapter_model.safetensors").read_bytes()


@pytest.mark.slow
def test_updates_of_workers_are_trained_again_to_the_same_bits(tmp_path):
    spread = short_run(tmp_path / "spread", executor__kind="workers", executor__workers="2")
    verdict = Verdict()
    asyncio.run(retrain(spread.directory, 4, verdict))
    assert verdict.findings == []
    assert verdict.counts["retrained updates"] == 4


@pytest.mark.slow
def test_a_script_without_a_guard_may_use_workers(inline, tmp_path):
    changes = {**SHORT, "executor.kind": "workers"}
    script = tmp_path / "script.py"
    script.write_text(
        "import fedsim\n"
        f"scenario = fedsim.load_scenario({str(SCENARIO)!r}, {changes!r})\n"
        f"print(fedsim.run(scenario, {str(tmp_path / 'run')!r}, report=False).record_hash)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, [inline.record_hash])
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_actors_of_ray_give_the_same_record(inline, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'fedsim-lora[ray]'")
    spread = short_run(tmp_path / "spread", executor__kind="ray", executor__workers="2")
    assert spread.record_hash == inline.record_hash
    ours = (spread.directory / "adapter" / "adapter_model.safetensors").read_bytes()
    assert ours == (inline.directory / "adapter" / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize("prefetch", ["certain", pytest.param("speculative", marks=pytest.mark.slow)])
def test_training_ahead_gives_the_same_record(inline, tmp_path, prefetch):
    ahead = short_run(tmp_path / "ahead", executor__prefetch=prefetch)
    assert ahead.record_hash == inline.record_hash
    assert inline.steps["wasted"] == 0
    assert ahead.steps["asked"] > inline.steps["asked"]
    assert ahead.steps["asked"] - ahead.steps["wasted"] == inline.steps["asked"]


def test_another_seed_gives_another_record(tmp_path):
    one, other = (
        short_run(tmp_path / seed, seed=seed, executor__kind="stub").record_hash for seed in ("0", "5")
    )
    assert one != other


def test_the_record_names_nothing_of_this_machine(inline):
    text = (inline.directory / "events.jsonl").read_text()
    assert str(ROOT) not in text
    assert "inline" not in text


def test_peft_loads_the_adapter_and_measures_our_loss(inline):
    base = AutoModelForCausalLM.from_pretrained(resolve_source("embedded"), dtype=torch.float32)
    loaded = load_model("embedded")
    manifest = json.loads((inline.directory / "manifest.json").read_text())
    assert manifest["scenario"]["model"]["base"] == "embedded"
    from fedsim.experiment.build import build_task

    scenario = fedsim.load_scenario(SCENARIO, SHORT)
    held_out = build_task(scenario, 200).held_out
    encoded = encode(loaded.tokenizer, held_out, scenario.task.max_length)
    batch = collate(encoded, loaded.tokenizer.pad_token_id)

    def measured(model):
        with torch.inference_mode():
            return float(
                model(
                    input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels
                ).loss
            )

    assert measured(base) == pytest.approx(losses(inline)[0], abs=1e-4)
    adapted = PeftModel.from_pretrained(base, inline.directory / "adapter").eval()
    assert measured(adapted) == pytest.approx(losses(inline)[-1], abs=1e-4)


async def test_arun_awaits(tmp_path):
    scenario = fedsim.load_scenario(SCENARIO, {**SHORT, "executor.kind": "stub"})
    result = await fedsim.arun(scenario, tmp_path / "run")
    assert result.evaluations[0]["loss"] is None


async def test_run_works_inside_a_running_loop(tmp_path):
    scenario = fedsim.load_scenario(SCENARIO, {**SHORT, "executor.kind": "stub"})
    assert asyncio.get_running_loop()
    assert fedsim.run(scenario, tmp_path / "run").reason == "2 rounds are over"


REAL_START_S = 828_700.0  # soon one of the four devices comes, goes and comes again
REAL_TRACES, REAL_DATA = real_traces() / "canonical_examples", real_data() / "e2e"


@pytest.mark.skipif(not REAL_TRACES.is_dir(), reason=f"no real traces at {REAL_TRACES}")
@pytest.mark.skipif(not REAL_DATA.is_dir(), reason=f"no real data at {REAL_DATA}")
def test_real_traces_and_real_data(tmp_path):
    path = tmp_path / "real.yaml"
    path.write_text(
        f"""
seed: 1
model: {{stands_for: smollm2-135m, targets: all-linear}}
task:
  name: e2e_nlg
  train: {REAL_DATA}/devset.csv
  held_out: {REAL_DATA}/testset_w_refs.csv
  max_length: 128
fleet:
  devices: {REAL_TRACES}/devices.csv
  availability: {REAL_TRACES}/availability.csv
  bandwidth: {REAL_TRACES}/bandwidth.csv
  start: {REAL_START_S} s
  bandwidth_scale: 0.01
server:
  cohort: 4
  deadline: 1 h
  download_window: 20 min
  initial_down_mbps: 0.05
  initial_up_mbps: 0.02
training: {{local_steps: 4, batch_size: 4, learning_rate: 1e-2}}
stop: {{rounds: 8, hours: 200}}
evaluation: {{every: 4, held_out_examples: 32}}
"""
    )
    result = fedsim.run(path, tmp_path / "run")
    events = audit.read_events(result.directory)
    audit.check_order(events)
    audit.check_outcomes(events)
    fleet = audit.Fleet(REAL_TRACES, REAL_START_S)
    audit.check_presence(events, fleet)
    for name, before in (("departed", True), ("arrived", False)):
        changes = audit.of(events, name)
        assert changes
        for event in changes:
            assert fleet.is_online(event["device"], event["time_s"] - 1.0) is before
            assert fleet.is_online(event["device"], event["time_s"] + 1.0) is not before
    assert len({event["device"] for event in audit.of(events, "dispatched")}) > 1
    assert losses(result)[-1] < losses(result)[0]
