"""In a run, devices take part only while the rules hold, and the record tells what work cost in energy."""

import csv
import json
from pathlib import Path

import pytest

from fedsim.cli.run import closing_lines
from fedsim.errors import InputError
from fedsim.experiment.load import load_run
from fedsim.experiment.report import tables
from fedsim.experiment.run import run
from fedsim.experiment.scenario import load_scenario

TRACES = Path(__file__).parents[2] / "traces" / "everyday"
SCENARIO = f"""name: x
fleet:
  devices: {TRACES}/devices.csv
  availability: {TRACES}/availability.csv
  bandwidth: {TRACES}/bandwidth.csv
  state: {TRACES}/state.csv
  start: 1 d
server: {{cohort: 4, min_updates: 1, deadline: 2 h}}
evaluation: {{every: 50}}
executor: {{kind: stub}}
stop: {{rounds: 12, hours: 72}}
"""
ENERGY = {"fleet.energy": str(TRACES / "energy.toml")}
RULES = {"fleet.eligibility": "{charging: true, unmetered: true, min_battery: 30}"}


@pytest.fixture(scope="module")
def carry_out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rules")
    (folder / "s.yaml").write_text(SCENARIO)
    known = {}

    def make(name, **changes):
        if name not in known:
            result = run(load_scenario(folder / "s.yaml", changes), folder / name)
            lines = (result.directory / "events.jsonl").read_text().splitlines()
            known[name] = result, [json.loads(line) for line in lines]
        return known[name]

    return make


def held(device, key, at_s):
    """What the state file says of a device at a time, read without fedsim."""
    with (TRACES / "state.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if (row["device_id"], row["key"]) == (device, key)]
    return [row["value"] for row in rows if float(row["time_s"]) <= at_s % 604_800][-1]


def obeys(line):
    at_s = line["time_s"] + 86_400
    told = [held(line["device"], key, at_s) for key in ("charging", "network", "battery_pct")]
    return told[:2] == ["1", "wifi"] and float(told[2]) >= 30


def test_only_devices_that_obey_the_rules_are_asked(carry_out):
    _, free = carry_out("free")
    result, ruled = carry_out("ruled", **RULES)
    asked = [line for line in ruled if line["event"] == "dispatched"]
    assert len(asked) >= 10
    assert all(obeys(line) for line in asked)
    assert not all(obeys(line) for line in free if line["event"] == "dispatched")
    notes = json.loads((result.directory / "manifest.json").read_text())["trace_notes"]
    assert any(note.startswith("eligibility by charging, unmetered, min_battery: ") for note in notes)


def test_a_device_that_leaves_the_charger_leaves_its_work(carry_out):
    # So slow that nothing is finished while the charger lasts.
    _, lines = carry_out("slow", **RULES, **{"fleet.bandwidth_scale": "0.0005", "server.deadline": "9 d"})
    names = {line["client"]: line["device"] for line in lines if line["event"] == "dispatched"}
    dropped = [(line["time_s"], names[line["client"]]) for line in lines if line.get("outcome") == "dropped"]
    assert dropped
    assert all(obeys({"time_s": at_s - 0.5, "device": name}) for at_s, name in dropped)
    assert any(not obeys({"time_s": at_s + 0.5, "device": name}) for at_s, name in dropped)


def test_the_record_and_the_page_tell_energy(carry_out):
    result, lines = carry_out("energy", **ENERGY)
    ends = [line for line in lines if line["event"] == "settled"]
    assert ends
    spent = sum(sum(line["energy_j"].values()) for line in ends)
    assert spent > 0
    for line in ends:
        assert line["energy_j"]["train"] >= 0
        assert (line["energy_j"]["upload"] > 0) == (line["bytes_up"] > 0)
    told = json.loads((result.directory / "summary.json").read_text())["energy_j"]
    assert told["total"] == pytest.approx(spent)
    assert told["total"] == pytest.approx(told["download"] + told["train"] + told["upload"])
    assert any("Wh train" in line for line in closing_lines(result))
    loaded = load_run(result.directory)
    assert tables.energy_by_class(loaded).to_numpy().sum() * 3600 == pytest.approx(spent)
    assert loaded.manifest["traces"][str(TRACES / "energy.toml")]
    page = (result.directory / "report.html").read_text()
    assert "Energy of the devices, by class" in page
    assert "Devices spent " in page


def test_training_costs_the_power_of_the_class(carry_out):
    _, lines = carry_out("energy", **ENERGY)
    watts = {"phone-low": 3.0, "phone-mid": 4.0, "phone-high": 5.0}
    trained = {line["assignment"]: line["duration_s"] for line in lines if line["event"] == "trained"}
    ends = [line for line in lines if line["event"] == "settled" and line["assignment"] in trained]
    assert ends
    for line in ends:
        expected = watts[line["device_class"]] * trained[line["assignment"]]
        assert line["energy_j"]["train"] == pytest.approx(expected)


def test_without_coefficients_nothing_is_told(carry_out):
    result, lines = carry_out("free")
    assert all("energy_j" not in line for line in lines)
    assert json.loads((result.directory / "summary.json").read_text())["energy_j"] is None
    assert "Energy of the devices" not in (result.directory / "report.html").read_text()
    assert tables.energy_by_class(load_run(result.directory)).empty


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fleet.energy": "no.toml"}, r"fleet\.energy: no such file"),
        ({"fleet.eligibility.min_battery": "0"}, r"fleet\.eligibility\.min_battery: expected more than 0"),
        ({"fleet.eligibility.min_batery": "10"}, r'did you mean "min_battery"'),
        ({"fleet.state": "null", **RULES}, r"eligibility\.charging: expected a column"),
    ],
)
def test_mistakes_are_one_line(carry_out, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        carry_out(message, **changes)
    assert "\n" not in str(caught.value)
