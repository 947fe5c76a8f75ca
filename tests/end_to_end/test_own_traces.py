"""A user's own device and link, written by hand, take part in a run; recipes and populations run too."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedsim.errors import InputError
from fedsim.experiment.fleet import build_population
from fedsim.experiment.run import run
from fedsim.experiment.scenario import load_scenario

ROOT = Path(__file__).parents[2]
STUB = {"executor.kind": "stub", "stop.rounds": "2", "evaluation.every": "2"}


def events(result):
    lines = (result.directory / "events.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_a_device_and_a_link_written_by_hand_take_part(tmp_path):
    for path in (ROOT / "traces" / "skewed_edge").iterdir():
        shutil.copy(path, tmp_path)
    with (tmp_path / "devices.csv").open("a") as file:
        file.write("my-phone,phone-high,7000,90,18,,,my-link,0,1,0\n")
    with (tmp_path / "availability.csv").open("a") as file:
        file.write("my-phone,0,604800\n")
    with (tmp_path / "bandwidth.csv").open("a") as file:
        file.write("my-link,0,80,20,30\nmy-link,60,100,25,\n")
    scenario = tmp_path / "mine.yaml"
    scenario.write_text(
        f"name: mine\nextends: {ROOT / 'scenarios' / 'skewed_edge.yaml'}\nfleet:\n"
        "  devices: devices.csv\n  availability: availability.csv\n"
        "  bandwidth: bandwidth.csv\n  state: state.csv\n"
    )
    # Everybody who is there is asked, so that the new one is among them.
    everyone = {**STUB, "server.cohort": "150", "server.over_selection": "1", "server.deadline": "2 h"}
    loaded = load_scenario(scenario, everyone)
    population = build_population(loaded)
    index = population.device_ids.index("my-phone")
    assert population.device(index).downlink.rate_bps(0) == 80e6 * loaded.fleet.bandwidth_scale
    result = run(loaded, tmp_path / "out")
    mine = [event for event in events(result) if event.get("client") == index]
    assert mine, "the device was never asked"
    manifest = json.loads((result.directory / "manifest.json").read_text())
    assert any(path.endswith("bandwidth.csv") for path in manifest["traces"])


RECIPE = """name: x
fleet: {recipe: phones, recipe_days: 1, population: 60, start: 2 h}
server: {cohort: 4}
"""


@pytest.fixture
def scenario(tmp_path):
    def make(text=RECIPE, **overrides):
        (tmp_path / "s.yaml").write_text(text + "stop: {rounds: 2, hours: 12}\n")
        chosen = {key.replace("__", "."): value for key, value in overrides.items()}
        return load_scenario(tmp_path / "s.yaml", {**STUB, **chosen})

    return make


def test_a_scenario_may_name_a_recipe_only(scenario, tmp_path):
    result = run(scenario(), tmp_path / "out")
    manifest = json.loads((result.directory / "manifest.json").read_text())
    assert manifest["num_devices"] == 60
    assert "recipe phones: devices.csv" in manifest["traces"]
    again = run(scenario(), tmp_path / "again")
    assert result.record_hash == again.record_hash


def test_own_files_stand_in_for_parts_of_a_recipe(scenario, tmp_path):
    (tmp_path / "a.csv").write_text("device_id,start_s,end_s\nx,0,86400\ny,0,3600\n")
    (tmp_path / "b.csv").write_text("trace_id,time_s,down_mbps\nmine,0,5\n")
    population = build_population(
        scenario(fleet__availability=str(tmp_path / "a.csv"), fleet__bandwidth=str(tmp_path / "b.csv"))
    )
    assert population.num_devices == 60
    assert 0 < len(population.online(43_200.0)) < 60  # about half follow x, who never leaves
    assert {population.device(k).downlink.rate_bps(0.0) for k in range(60)} != {0}
    assert [entry.trace_id for entry in population.connections.library] == ["mine"]
    (tmp_path / "d.csv").write_text("device_id,device_class,compute_gflops\nmine,phone-low,20\n")
    own = build_population(scenario(fleet__devices=str(tmp_path / "d.csv"), fleet__population="null"))
    assert own.device_ids == ("mine",)
    assert own.state is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"fleet__population": "null"}, "fleet.population: required by fleet.recipe"),
        ({"fleet__recipe": "null"}, "fleet.availability: required"),
        ({"fleet__recipe": "phone"}, 'did you mean "phones"'),
        ({"fleet__recipe": "./no.yaml"}, "no such file"),
        ({"fleet__pairing__availability_compute": "0.5"}, "has no effect unless fleet.pairing.kind"),
        ({"fleet__pairing__within": "fleet"}, "has no effect on whole devices"),
        ({"fleet__shares": "{phone-low: 0.4}"}, "add up to 1"),
        ({"fleet__time_zones": "{moon: 1.0}"}, "hours from UTC"),
    ],
)
def test_contradictions_are_refused(scenario, overrides, message):
    with pytest.raises(InputError, match=message.replace(".", r"\.")):
        build_population(scenario(**overrides))


def test_population_keys_without_a_population_are_refused(tmp_path):
    path = ROOT / "scenarios" / "skewed_edge.yaml"
    for key, value in (("shares", "{pi-5: 1.0}"), ("time_zones", "{1: 1.0}"), ("bandwidth_spread", "0.1")):
        with pytest.raises(InputError, match=f"fleet.{key}: has no effect without fleet.population"):
            load_scenario(path, {f"fleet.{key}": value})
    for key in ("templates", "recipe_days"):
        with pytest.raises(InputError, match=f"fleet.{key}: has no effect without fleet.recipe"):
            load_scenario(path, {f"fleet.{key}": "3"})


def test_a_population_grows_from_files(tmp_path):
    path = ROOT / "scenarios" / "skewed_edge.yaml"
    population = build_population(load_scenario(path, {"fleet.population": "5000"}))
    assert population.num_devices == 5000
    assert any("drawn from 200 templates" in note for note in population.notes)


@pytest.mark.slow
def test_a_million_devices_are_checked_in_seconds_and_little_memory(tmp_path):
    (tmp_path / "s.yaml").write_text(
        "name: x\nfleet: {recipe: skewed_edge, population: 1000000}\nstop: {rounds: 1}\n"
    )
    script = (
        "import resource, sys\nfrom fedsim.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as ended: code = ended.code\n"
        "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, code)\n"
    )
    begun = time.monotonic()
    words = [sys.executable, "-c", script, "check", str(tmp_path / "s.yaml")]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120, cwd=ROOT)
    assert time.monotonic() - begun < 60
    _, peak_kb, code = done.stdout.splitlines()[-1].split()
    assert code in {"0", "None"}
    assert int(peak_kb) < 2e6
