import json
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from fedsim.errors import InputError, ScenarioError
from fedsim.experiment.scenario import NAME_OR_PATH, PATH_KEYS, Scenario, load_scenario

MINIMAL = """\
fleet:
  devices: devices.csv
  bandwidth: bandwidth.csv
  availability: availability.csv
stop:
  rounds: 3
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("minimal.yaml").write_text(MINIMAL)
    return tmp_path


def write(text, name="x.yaml"):
    Path(name).write_text(text)
    return Path(name)


def test_a_minimal_scenario_is_short_and_takes_its_name_from_the_file(here):
    scenario = load_scenario("minimal.yaml")
    assert scenario.name == "minimal"
    assert scenario.fleet.devices == here / "devices.csv"
    assert (scenario.method.name, scenario.server.estimator, scenario.stop.rounds) == (
        "fedhera",
        "harmonic",
        3,
    )


def test_quantities_arrive_in_base_units(here):
    scenario = load_scenario(
        write(
            MINIMAL
            + "server: {deadline: 15 min, download_window: 90 s, progress_every: 500 ms}\n"
            + "training: {learning_rate: 1e-2}\n"
        ),
        {
            "fleet.classes.phone": "{memory: 2 GiB, compute: 60 GFLOP/s, initial_down_mbps: 8}",
            "fleet.start": "2 h",
            "fleet.latency": "0.25",
        },
    )
    phone = scenario.fleet.classes["phone"]
    assert (scenario.server.deadline_s, scenario.server.download_window_s) == (900.0, 90.0)
    assert scenario.server.progress_every_s == 0.5
    assert scenario.training.learning_rate == 0.01
    assert (phone.memory_bytes, phone.compute_flops) == (2 * 2**30, 60e9)
    assert (phone.initial_down_mbps, phone.initial_up_mbps) == (8.0, None)
    assert (scenario.fleet.start_s, scenario.fleet.latency_s) == (7200.0, 0.25)


def test_paths_in_a_file_start_from_its_folder_and_paths_in_overrides_from_the_current_one(here):
    (here / "sub").mkdir()
    path = write(MINIMAL.replace("devices.csv", "../traces/devices.csv"), "sub/x.yaml")
    scenario = load_scenario(path, {"fleet.state": "state.csv"})
    assert scenario.fleet.devices == here / "traces/devices.csv"
    assert scenario.fleet.bandwidth == here / "sub/bandwidth.csv"
    assert scenario.fleet.state == here / "state.csv"


@pytest.mark.parametrize(
    ("base", "loaded"),
    [("embedded", "embedded"), ("org/model", "org/model"), ("./model", "{here}/model"), ("/m", "/m")],
)
def test_a_base_model_is_a_path_only_where_it_looks_like_one(here, base, loaded):
    scenario = load_scenario(write(MINIMAL + f"model: {{base: {base}}}\n"))
    assert scenario.model.base == loaded.format(here=here)


def test_path_keys_name_every_path_of_the_schema():
    found = {
        f"{section}.{name}"
        for section, field in Scenario.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        for name, inner in field.annotation.model_fields.items()
        if "Path" in str(inner.annotation)
    }
    assert found | set(NAME_OR_PATH) == set(PATH_KEYS)


def test_a_scenario_is_frozen(here):
    scenario = load_scenario("minimal.yaml")
    with pytest.raises(ValidationError):
        scenario.seed = 3
    with pytest.raises(ValidationError):
        scenario.server.cohort = 3


def test_extends_merges_sections_and_replaces_values(here):
    (here / "sub").mkdir()
    write("name: parent\n" + MINIMAL + "server: {cohort: 4, deadline: 60}\n", "sub/parent.yaml")
    child = load_scenario(
        write("extends: sub/parent.yaml\nserver: {cohort: 6}\nmodel: {targets: [q_proj]}\n")
    )
    assert (child.server.cohort, child.server.deadline_s) == (6, 60.0)
    assert child.fleet.devices == here / "sub/devices.csv"
    assert child.model.targets == ("q_proj",)
    assert child.name == "x"


def test_an_error_in_the_parent_names_the_parent(here):
    write(MINIMAL + "server: {cohort: none}\n", "parent.yaml")
    with pytest.raises(ScenarioError, match=r"^parent\.yaml:7: server\.cohort: expected a whole number"):
        load_scenario(write("extends: parent.yaml\n"))


def test_what_describe_prints_loads_as_the_same_scenario(here):
    scenario = load_scenario(
        "minimal.yaml", {"server.deadline": "15 min", "model.targets": "[q_proj, v_proj]"}
    )
    again = load_scenario(write(scenario.describe(), "again.yaml"))
    assert again.canonical_json() == scenario.canonical_json()
    assert again.scenario_hash == scenario.scenario_hash


def test_the_hash_ignores_the_executor_and_the_folder_and_nothing_else(here):
    scenario = load_scenario("minimal.yaml")
    (here / "elsewhere").mkdir()
    write(MINIMAL, "elsewhere/minimal.yaml")
    same = [
        load_scenario("minimal.yaml", {"executor.kind": "workers", "executor.workers": "7"}),
        load_scenario("elsewhere/minimal.yaml"),
        load_scenario(here / "minimal.yaml"),
    ]
    others = [
        load_scenario("minimal.yaml", {key: value})
        for key, value in (("seed", "1"), ("training.learning_rate", "0"), ("fleet.devices", "other.csv"))
    ]
    assert {other.scenario_hash for other in same} == {scenario.scenario_hash}
    assert len({other.scenario_hash for other in [scenario, *others]}) == 4
    assert len(scenario.scenario_hash) == 64


def test_canonical_json_holds_no_absolute_path(here):
    text = load_scenario("minimal.yaml").canonical_json()
    assert str(here) not in text
    assert json.loads(text)["fleet"]["devices"] == "devices.csv"


def test_a_late_error_names_the_line_of_the_value(here):
    scenario = load_scenario("minimal.yaml", {"method.options.rank": "3"})
    assert (
        str(scenario.error("fleet.devices", "no such file")) == "minimal.yaml:2: fleet.devices: no such file"
    )
    assert str(scenario.error("method.options.rank", "unknown option")) == (
        "--set method.options.rank=3: method.options.rank: unknown option"
    )
    assert isinstance(scenario.error("seed", "odd"), InputError)


def test_defaults_that_depend_on_another_value(here):
    embedded = load_scenario("minimal.yaml").task
    assert (embedded.examples_per_client, embedded.shards.alpha) == (120, 0.1)
    files = {
        "task.name": "e2e_nlg",
        "task.train": "a.csv",
        "task.held_out": "b.csv",
        "task.shards.kind": "iid",
    }
    read = load_scenario("minimal.yaml", files).task
    assert (read.examples_per_client, read.shards.alpha) == (None, None)
    again = load_scenario(write(load_scenario("minimal.yaml", files).describe()))
    assert again.task == read


def test_options_of_a_method_stay_as_written(here):
    scenario = load_scenario(
        "minimal.yaml", {"method.options": "{eta: 0.25, rule: skip, on: true, a: [1, 2]}"}
    )
    assert scenario.method.options == {"eta": 0.25, "rule": "skip", "on": True, "a": [1, 2]}


def test_a_scenario_made_in_python_is_checked_the_same_way():
    fleet = {"devices": "d.csv", "bandwidth": "b.csv", "availability_policy": "always"}
    assert Scenario.model_validate({"name": "x", "fleet": fleet, "stop": {"hours": 2}}).stop.hours == 2.0
    with pytest.raises(ValidationError, match="run would never end"):
        Scenario.model_validate({"name": "x", "fleet": fleet, "stop": {}})
