import json

import numpy as np
import pytest
import torch

from fedsim.errors import ScenarioError
from fedsim.experiment.build import build
from fedsim.experiment.calibrate import fit, read_calibration
from fedsim.learn.model import load_model, model_shape
from fedsim.learn.peft_bridge import AdapterSlot
from fedsim.learn.probe import Point, probe
from fedsim.world.cost import Workload, roofline
from fedsim.world.cost_calibrated import (
    MEMORY_PARTS,
    TIME_PARTS,
    Calibration,
    calibrated,
    memory_parts,
    time_parts,
)
from tests.deploy_world import scenario_of


def calibration(**changes):
    given = {
        "time": dict(zip(TIME_PARTS, (0.01, 2e-11, 3e-11, 5e-11), strict=True)),
        "memory": dict(zip(MEMORY_PARTS, (1e4, 0.5, 3.0, 1.5, 2.0), strict=True)),
        "time_error": 0.08,
        "memory_error": 0.01,
        "model": "embedded",
        "machine": "a test",
    }
    return given | changes


@pytest.fixture(scope="module")
def loaded():
    torch.set_num_threads(1)
    return load_model("embedded", "cpu")


@pytest.fixture(scope="module")
def shape(loaded):
    return model_shape(loaded, "all-linear")


def test_a_known_law_is_found_though_one_measurement_is_far_off():
    rng = np.random.default_rng(0)
    parts = rng.uniform(1.0, 10.0, (14, 3))
    values = parts @ [1.0, 0.0, 3.0]
    values[4] *= 3.0
    found = fit(parts, values, ("a", "b", "c"))
    assert list(found.coefficients.values()) == pytest.approx([1.0, 0.0, 3.0], abs=0.1)
    assert found.median_error < 0.03
    assert max(found.errors) > 0.5


def test_calibrated_prices_are_the_fitted_law(shape):
    work = Workload(4, 32, 5, "float32", 4.0, activation_bytes=4.0)
    total, trained = [8] * len(shape.layers), [3] * len(shape.layers)
    fitted = Calibration(**calibration())
    prices = calibrated(shape, work, fitted)
    seconds = 5 * float(time_parts(shape, work, total, trained) @ list(fitted.time.values()))
    assert prices.flops(total, trained) / fitted.flops == pytest.approx(seconds)
    peak = shape.num_params * 4.0 + memory_parts(shape, work, total, trained) @ list(fitted.memory.values())
    assert prices.memory_bytes(total, trained) == pytest.approx(float(peak))
    assert (prices.down_bytes == roofline(shape, work).down_bytes).all()


def test_a_step_is_measured_and_more_ranks_take_more_memory(loaded, shape):
    slot = AdapterSlot(loaded.model, tuple(layer.name for layer in shape.layers))
    few, many = probe(loaded, slot, shape.layers, [Point(rank, rank, 2, 16) for rank in (1, 32)], repeats=1)
    state = 31 * sum(layer.d_in + layer.d_out for layer in shape.layers) * 16  # weight, gradient, two moments
    assert few.step_s > 0
    assert many.peak_bytes - few.peak_bytes == pytest.approx(state, rel=0.3)


def test_a_scenario_uses_it_and_says_how_far_off_it_is(tmp_path):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(calibration(format=1)))
    experiment = build(scenario_of(tmp_path, cost__calibration=str(path), executor__kind="stub"))
    plain = build(scenario_of(tmp_path, executor__kind="stub"))
    assert experiment.prices.base_flops > plain.prices.base_flops
    assert any("8.0 % in time and 1.0 % in memory" in caveat for caveat in experiment.caveats)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nothing", "fedsim calibrate wrote"),
        (json.dumps({"format": 1}), "fedsim calibrate wrote"),
        (json.dumps(calibration(format=2)), "format 1"),
        (json.dumps(calibration(format=1, time=dict.fromkeys(TIME_PARTS, 0.0))), "above 0"),
        (json.dumps(calibration(format=1, memory=dict.fromkeys(MEMORY_PARTS, -1.0))), "at least 0"),
    ],
)
def test_another_file_is_refused(tmp_path, content, message):
    path = tmp_path / "c.json"
    path.write_text(content)
    with pytest.raises(ScenarioError, match=message):
        read_calibration(path)


def test_the_published_constants_take_no_calibration(tmp_path):
    (tmp_path / "c.json").write_text(json.dumps(calibration(format=1)))
    with pytest.raises(ScenarioError, match="has no effect on the published constants"):
        scenario_of(tmp_path, cost__model="paper", cost__calibration=str(tmp_path / "c.json"))
