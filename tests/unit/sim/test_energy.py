"""Joules per assignment in the record, by hand; nothing where nobody gave coefficients."""

from dataclasses import replace

import pytest

from fedsim.method.pacing import SyncPacing
from fedsim.sim.energy import Spans
from fedsim.world.calibration import RadioPower
from fedsim.world.energy import DevicePower
from tests import toyworld

POWER = DevicePower(4.0, RadioPower(0.5, 0.0, 0.0))


def test_absences_cost_nothing():
    spans = Spans()
    spans.begin("download", 0.0)
    spans.pause(10.0, 100.0)
    spans.end("download", 110.0)
    spans.begin("train", 110.0)
    spans.pause(130.0, 500.0)
    spans.close(200.0)  # while it is away
    assert spans.joules(POWER, 0, 0) == {"download": 10.0, "train": 80.0, "upload": 0.0}


def test_phases_may_overlap():
    spans = Spans()
    spans.begin("download", 0.0)
    spans.begin("train", 5.0)
    spans.end("download", 20.0)
    spans.close(25.0)
    assert spans.joules(POWER, 0, 0) == {"download": 10.0, "train": 80.0, "upload": 0.0}


def played(devices):
    return toyworld.play(devices, SyncPacing(len(devices), 1.0, 1, None), rounds=1).lines.of("settled")


def test_the_record_tells_joules_of_every_assignment():
    stays = replace(toyworld.device(0, 60.0), power=POWER)
    leaves = replace(toyworld.device(1, 60.0, online=((0.0, 25.0),)), power=POWER)
    ends = {line["client"]: line for line in played([stays, leaves])}
    assert ends[0]["outcome"] == "aggregated"
    assert ends[0]["energy_j"]["train"] == pytest.approx(4.0 * 60.0)
    assert (ends[1]["outcome"], ends[1]["phase"]) == ("dropped", "train")
    assert ends[1]["energy_j"]["train"] == pytest.approx(4.0 * 25.0, rel=1e-3)  # less the tiny download
    assert ends[1]["energy_j"]["upload"] == 0.0


def test_without_coefficients_the_record_says_nothing():
    assert all("energy_j" not in line for line in played([toyworld.device(0, 60.0)]))
