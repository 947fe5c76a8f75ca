"""What a scenario may say about where training happens, and what it must not."""

from pathlib import Path

import pytest

import fedsim
from fedsim.errors import MissingExtraError, ScenarioError
from fedsim.learn.executors import ray_pool

SCENARIO = Path(__file__).parents[3] / "scenarios" / "skewed_edge.yaml"


def executor(**changes):
    overrides = {f"executor.{key}": value for key, value in changes.items()}
    return fedsim.load_scenario(SCENARIO, overrides).executor


def test_options_of_ray_have_defaults_only_there():
    plain, ray = executor(), executor(kind="ray")
    assert (plain.address, plain.num_cpus, plain.num_gpus) == (None, None, None)
    assert (ray.address, ray.num_cpus, ray.num_gpus) == (None, 1.0, 0.0)
    assert executor(kind="ray", num_gpus="0.5", address="auto").num_gpus == 0.5


@pytest.mark.parametrize("key", ["address", "num_cpus", "num_gpus"])
@pytest.mark.parametrize("kind", ["inline", "workers", "stub"])
def test_they_are_refused_elsewhere(kind, key):
    with pytest.raises(ScenarioError, match=rf"executor.{key}: has no effect on {kind}"):
        executor(kind=kind, **{key: "auto" if key == "address" else "1"})


def test_a_gpu_for_the_model_needs_one_for_the_actor():
    with pytest.raises(ScenarioError, match=r"executor\.num_gpus: model.device is cuda"):
        fedsim.load_scenario(SCENARIO, {"executor.kind": "ray", "model.device": "cuda"})


def test_groups_need_training_on_demand():
    with pytest.raises(ScenarioError, match=r"executor\.batch_clients: needs executor.prefetch: none"):
        executor(prefetch="certain", batch_clients="2")


def test_a_run_without_ray_names_the_way_out(monkeypatch, tmp_path):
    monkeypatch.setattr(ray_pool, "find_spec", lambda name: None)
    scenario = fedsim.load_scenario(SCENARIO, {"executor.kind": "ray"})
    with pytest.raises(MissingExtraError, match=r"pip install 'fedsim-lora\[ray\]'"):
        fedsim.run(scenario, tmp_path / "run")
    assert not (tmp_path / "run").exists()
