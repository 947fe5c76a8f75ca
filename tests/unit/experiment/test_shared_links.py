"""What a scenario says about cells and the server's own link, and about a record of versions alone."""

import json
from pathlib import Path

import pytest

from fedsim.errors import InputError, ScenarioError
from fedsim.experiment.fleet import build_population
from fedsim.experiment.record import EVENTS, Recorder
from fedsim.experiment.scenario import load_scenario
from fedsim.experiment.shared import shared_capacity
from fedsim.experiment.verify import verify

SCENARIO = Path(__file__).parents[3] / "scenarios" / "skewed_edge.yaml"


def scenario(**overrides):
    return load_scenario(SCENARIO, {key.replace("__", "."): value for key, value in overrides.items()})


def test_devices_are_dealt_to_cells_by_the_seed():
    asked = scenario(fleet__cells="{count: 4, down_mbps: 2}", server__ingress_mbps="7")
    population = build_population(asked)
    assert set(population.cell.tolist()) == {0, 1, 2, 3}
    assert (build_population(asked).cell == population.cell).all()
    shared = shared_capacity(asked, population)
    assert [trace.value(0.0) for trace in shared["download"].cells] == [2e6] * 4
    assert shared["download"].common is None
    assert shared["upload"].cells == ()
    assert shared["upload"].common.value(0.0) == 7e6


def test_cells_of_the_device_file(tmp_path):
    rows = [
        "device_id,compute_gflops,mem_available_mib,cell_id",
        "a,1,100,roof",
        "b,1,100,",
        "c,1,100,cellar",
    ]
    (tmp_path / "d.csv").write_text("\n".join([*rows, "d,1,100,roof"]) + "\n")
    (tmp_path / "b.csv").write_text("trace_id,time_s,down_mbps\nt,0,1\n")
    (tmp_path / "s.yaml").write_text(
        "name: s\nfleet: {devices: d.csv, bandwidth: b.csv, availability_policy: always,\n"
        "  cells: {up_mbps: 1}}\nstop: {rounds: 1}\n"
    )
    asked = load_scenario(tmp_path / "s.yaml")
    population = build_population(asked)
    assert population.cell.tolist() == [1, -1, 0, 1]
    assert len(shared_capacity(asked, population)["upload"].cells) == 2
    counted = load_scenario(tmp_path / "s.yaml", {"fleet.cells.count": "3"})
    with pytest.raises(ScenarioError, match=r"fleet\.cells\.count: the device file names cells"):
        build_population(counted)


def test_nothing_is_shared_by_default():
    asked = scenario()
    assert shared_capacity(asked, build_population(asked)) == {}


def test_cells_that_do_nothing_are_refused():
    with pytest.raises(ScenarioError, match="no effect without down_mbps or up_mbps"):
        scenario(fleet__cells="{count: 4}")
    with pytest.raises(ScenarioError, match=r"cells\.count: required: the device file has no column cell_id"):
        build_population(scenario(fleet__cells="{down_mbps: 4}"))


SETTLED = {"outcome": "aggregated", "phase": None, "device_class": "phone", "bytes_down": 5, "bytes_up": 7}


def test_a_record_of_versions_counts_what_it_leaves_out(tmp_path):
    recorder = Recorder(tmp_path, lines="versions")
    recorder.observe(1.0, "settled", SETTLED)
    recorder.observe(2.0, "round_closed", {"round": 0, "version": 1, "result": "aggregated"})
    recorder.close()
    lines = [json.loads(line) for line in (tmp_path / EVENTS).read_text().splitlines()]
    assert [line["event"] for line in lines] == ["round_closed"]
    assert recorder.tally.outcomes == {"aggregated": 1}
    assert recorder.tally.bytes_up == 7


def test_a_record_of_versions_is_not_verified(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"scenario": {"record": {"lines": "versions"}}}))
    with pytest.raises(InputError, match=r"record\.lines: all"):
        verify(tmp_path)
