"""Trackers: both axes, nothing outside the run's folder, a clear word where a package is missing."""

import re
import struct
import types

import pytest
from accelerate.tracking import GeneralTracker

from fedsim.errors import MissingExtraError, ScenarioError
from fedsim.experiment import tracking as module
from fedsim.experiment.scenario import load_scenario
from fedsim.experiment.tracking import MetricSink, StepSink, Tracking, check_trackers, tracking

SETTLED = {
    "outcome": "aggregated",
    "phase": "done",
    "device_class": "phone",
    "bytes_down": 300,
    "bytes_up": 200,
}
EVALUATED = {"version": 1, "loss": 1.5, "token_accuracy": 0.5, "rouge_l": 0.25}


class Fake(GeneralTracker):
    """A tracker as anybody may write one with accelerate."""

    name = "fake"
    requires_logging_directory = False

    def __init__(self):
        super().__init__()
        self.lines = []
        self.is_finished = False

    @property
    def tracker(self):
        return self.lines

    def log(self, values, step=None, **kwargs):
        self.lines.append((values, step, kwargs))

    def finish(self):
        self.is_finished = True


def told(sink):
    watching = Tracking([sink])
    watching.observe(0.0, "evaluated", {"version": 0, "loss": None, "token_accuracy": None})
    watching.observe(60.0, "settled", SETTLED)
    watching.observe(7200.4, "round_closed", {"round": 1})
    watching.observe(7200.4, "evaluated", EVALUATED)
    watching.finish()


def test_every_figure_is_told_over_time_and_over_bytes():
    fake = Fake()
    told(StepSink(fake))
    assert fake.lines == [
        ({"over_hours/updates/aggregated": 1.0}, 7200, {}),
        ({"over_bytes/updates/aggregated": 1.0}, 500, {}),
        ({"over_hours/loss": 1.5, "over_hours/token_accuracy": 0.5, "over_hours/rouge_l": 0.25}, 7200, {}),
        ({"over_bytes/loss": 1.5, "over_bytes/token_accuracy": 0.5, "over_bytes/rouge_l": 0.25}, 500, {}),
    ]
    assert fake.is_finished


def test_a_tracker_with_axes_of_its_own_gets_them_as_figures():
    fake, defined = Fake(), []
    run = types.SimpleNamespace(define_metric=lambda name, step_metric: defined.append((name, step_metric)))
    told(MetricSink(fake, run))
    assert defined == [("over_hours/*", "virtual_hours"), ("over_bytes/*", "bytes")]
    values, step, _ = fake.lines[-1]
    assert step is None
    assert values["virtual_hours"] == pytest.approx(7200.4 / 3600)
    assert (values["bytes"], values["over_hours/loss"], values["over_bytes/loss"]) == (500.0, 1.5, 1.5)


def scalars(folder):
    """Read TensorBoard's files: (tag, step) -> (value, time stamp)."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2", reason="reads the files back")
    found = {}
    for path in folder.rglob("events*"):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = event_pb2.Event.FromString(data[12 : 12 + length])
            data = data[12 + length + 4 :]
            for value in event.summary.value:
                found[value.tag, event.step] = (value.simple_value, event.wall_time)
    return found


def scenario(tmp_path, track):
    (tmp_path / "x.yaml").write_text(
        f"track: {track}\nstop: {{rounds: 1}}\nfleet: {{recipe: phones, population: 4}}\n"
    )
    return load_scenario(tmp_path / "x.yaml")


def test_tensorboard_writes_into_the_run(tmp_path):
    pytest.importorskip("tensorboardX", reason="TensorBoard's writer")
    asked = scenario(tmp_path, "[tensorboard]")
    for _ in range(2):  # a resumed run sees all events again, and tells them once
        with tracking(asked, tmp_path / "run") as (watching,):
            watching.observe(60.0, "settled", SETTLED)
            watching.observe(7200.4, "evaluated", EVALUATED)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["track"]
    found = scalars(tmp_path / "run" / "track" / "tensorboard")
    assert len(found) == 6
    assert found["over_hours/loss", 7200] == (1.5, 7200.4)
    assert found["over_bytes/rouge_l", 500] == (0.25, 7200.4)
    assert len(list((tmp_path / "run" / "track").rglob("events*"))) == 1


def test_nobody_is_told_unless_asked(tmp_path):
    with tracking(scenario(tmp_path, "[]"), tmp_path / "run") as watching:
        assert watching == []
    assert not (tmp_path / "run").exists()


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(
        MissingExtraError, match=r"track: wandb needs the package wandb; .*fedsim-lora\[wandb\]"
    ):
        check_trackers(["wandb"])
    check_trackers([])


@pytest.mark.parametrize(
    ("track", "found"),
    [
        ("[comet]", '"comet"'),
        ("tensorboard", '"tensorboard"'),
        ("[wandb, wandb]", '"wandb", "wandb"'),
        ("[{a: 1}]", ""),
    ],
)
def test_unknown_trackers_are_refused(tmp_path, track, found):
    expected = f"track: expected a list of tensorboard, mlflow, wandb, each once, got {found}"
    with pytest.raises(ScenarioError, match=re.escape(expected)):
        scenario(tmp_path, track)


def test_the_record_does_not_depend_on_trackers(tmp_path):
    hashes = {scenario(tmp_path, track).scenario_hash for track in ("[]", "[mlflow, wandb]")}
    assert len(hashes) == 1
