"""A base model whose shape is known is loaded when it is needed, and not before."""

import json
from dataclasses import asdict, replace

import pytest

import fedsim
from fedsim.errors import InputError
from fedsim.experiment import build
from fedsim.experiment.late import LateBase
from fedsim.experiment.manifest import known_shape
from fedsim.experiment.verify import verify
from tests import kills

TINY = {**kills.SHORT, "stop.rounds": "1", "server.cohort": "2", "training.local_steps": "1"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("finished") / "run"
    fedsim.run(fedsim.load_scenario(kills.SCENARIO, TINY), directory, report=False)
    return directory


@pytest.fixture(scope="module")
def loaded():
    from fedsim.learn.model import load_model

    return load_model("embedded", "cpu")


@pytest.fixture
def without_model(monkeypatch):
    def refuse(*_):
        raise AssertionError("nobody needs the model here")

    monkeypatch.setattr(build, "load_model", refuse)


@pytest.mark.usefixtures("without_model")
def test_a_run_goes_through_its_whole_record_without_the_model(finished):
    before = kills.fingerprint(finished)
    fedsim.resume(finished, report=False)
    assert kills.fingerprint(finished) == before
    assert verify(finished).findings == []


def test_a_manifest_that_tells_no_shape_has_the_model_loaded(finished, monkeypatch):
    path = finished / "manifest.json"
    whole = path.read_text()
    told = json.loads(whole)
    del told["shape"]
    path.write_text(json.dumps(told))
    original, asked = build.load_model, []
    monkeypatch.setattr(build, "load_model", lambda *given: asked.append(given) or original(*given))
    before = kills.fingerprint(finished)
    fedsim.resume(finished, report=False)
    path.write_text(whole)
    assert len(asked) == 1
    assert kills.fingerprint(finished) == before


def test_the_shape_is_told_as_it_is(finished, loaded):
    from fedsim.learn.model import model_shape

    targets = fedsim.load_scenario(kills.SCENARIO).model.targets
    assert known_shape(finished) == model_shape(loaded, targets)


def test_another_model_than_the_run_began_with_is_refused(loaded):
    from fedsim.learn.model import model_shape

    shape = model_shape(loaded, "attention")
    assert LateBase(lambda: loaded, "attention", shape).model is loaded
    other = LateBase(lambda: loaded, "attention", replace(shape, num_params=7))
    assert other.shape.num_params == 7
    with pytest.raises(InputError, match="not those that the run began with"):
        _ = other.model


@pytest.mark.parametrize(
    "change",
    [
        {"layers": [{"name": "x", "d_in": 3}]},
        {"layers": 3},
        {"num_params": -1},
        {"num_params": 10**30},
        {"hidden_size": True},
        {"name": 3},
        {"surprise": 1},
    ],
)
def test_a_damaged_shape_is_refused(tmp_path, loaded, change):
    from fedsim.learn.model import model_shape

    shape = {**asdict(model_shape(loaded, "attention")), **change}
    (tmp_path / "manifest.json").write_text(json.dumps({"shape": shape}))
    with pytest.raises(InputError, match=r"manifest\.json: damaged"):
        known_shape(tmp_path)
