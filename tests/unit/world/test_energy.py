"""Joules from watts, seconds and bytes, by hand; coefficients found by name; mistakes told in one line."""

# ruff: noqa: PT017  either answer is right

import random
from dataclasses import astuple

import pytest

from fedsim.errors import TraceError
from fedsim.world.calibration import RadioPower
from fedsim.world.energy import DevicePower, EnergyTable, fleet_power
from fedsim.world.formats.energy import read_energy
from fedsim.world.formats.records import Origin

RADIO = RadioPower(base_w=0.5, down_w_per_mbps=0.01, up_w_per_mbps=0.08)
SOUND = """
source = "a power meter"
licence = "CC0-1.0"
[class."phone-low"]
compute_w = 3
[network.lte]
base_w = 0.5
down_w_per_mbps = 0.01
up_w_per_mbps = 0.08
"""


def test_energy_is_base_power_times_time_and_slope_times_megabits():
    power = DevicePower(4.0, RADIO)
    # 10 s at 20 Mbit/s: 25 MB. (0.5 + 0.01 * 20) W * 10 s, and the same at any other course of the rate.
    assert power.download_j(10.0, 25e6) == pytest.approx(7.0)
    assert power.upload_j(10.0, 25e6) == pytest.approx(0.5 * 10 + 0.08 * 200)
    assert power.train_j(60.0) == 240.0


def looked_up(classes, traces, compute_w, radios, used=None):
    table = EnergyTable(compute_w, radios, Origin("e.toml", "0"))
    return fleet_power(table, classes, traces, set(range(len(traces))) if used is None else used)


def test_the_longest_network_that_a_trace_is_named_after_counts():
    radios = {name: RadioPower(float(k), 0, 0) for k, name in enumerate(("lte", "lte-poor", "wifi", "*"))}
    traces = ["lte", "lte-01", "lte-poor-01", "wifi.x", "lte2", "mine"]
    power = looked_up(["a", "b"], traces, {"a": 1.0, "*": 2.0}, radios)
    assert [radio.base_w for radio in power.radios] == [0, 0, 1, 2, 3, 3]
    assert power.compute_w == (1.0, 2.0)
    assert power.of(1, 2) == DevicePower(2.0, radios["lte-poor"])


def test_a_device_without_coefficients_is_refused():
    with pytest.raises(TraceError, match=r'e.toml: expected \[class."b"\].* found "a"; add it'):
        looked_up(["a", "b"], ["lte"], {"a": 1.0}, {"lte": RADIO})
    with pytest.raises(TraceError, match=r'that the trace "mine" is named after, found "lte"; add \[network'):
        looked_up(["a"], ["lte", "mine"], {"a": 1.0}, {"lte": RADIO})
    assert looked_up(["a"], ["lte", "mine"], {"a": 1.0}, {"lte": RADIO}, used={0}).radios[0] == RADIO


def test_a_file_is_read_with_its_origin(tmp_path):
    path = tmp_path / "energy.toml"
    path.write_text(SOUND)
    table = read_energy(path)
    assert table.compute_w == {"phone-low": 3.0}
    assert table.radios == {"lte": RADIO}
    assert (table.origin.source, table.origin.licence) == ("a power meter", "CC0-1.0")
    assert len(table.origin.sha256) == 64


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("compute_w = 3", "compute_w = -3", 'class."phone-low".compute_w: expected watts >= 0, got -3'),
        ("compute_w = 3", "compute_w = nan", "expected watts >= 0, got nan"),
        ("compute_w = 3", "compute_w = true", "expected watts >= 0, got True"),
        ("compute_w = 3", 'compute_w = "3 W"', "expected watts >= 0, got '3 W'"),
        ("compute_w = 3", "compute_w = 4e6", "expected watts >= 0, got 4000000.0"),
        ("compute_w = 3", "computew = 3", 'class."phone-low".computew: unknown key; expected compute_w'),
        ("compute_w = 3", "", 'class."phone-low".compute_w: expected, found none'),
        ("base_w = 0.5", "", "base_w: expected, found none"),
        ("[network.lte]", "[networks.lte]", "networks: unknown key"),
        ('[class."phone-low"]\ncompute_w = 3', "class = 3", "class: expected sections such as"),
        ('[class."phone-low"]\ncompute_w = 3', "[class]\nphone = 3", 'class."phone": expected a section'),
        ('licence = "CC0-1.0"', "licence = 3", "licence: expected a text, got 3"),
        ("[network.lte]", "[network.lte", "expected TOML"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, old, new, expected):
    path = tmp_path / "energy.toml"
    assert old in SOUND
    path.write_text(SOUND.replace(old, new))
    with pytest.raises(TraceError) as caught:
        read_energy(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_mutated_files_give_an_error_or_sound_coefficients(tmp_path):
    rng, path, loaded = random.Random(5), tmp_path / "energy.toml", 0
    for _ in range(300):
        data = bytearray(SOUND.encode())
        for _ in range(rng.choice([1, 1, 2, 5])):
            data[rng.randrange(len(data))] = rng.choice(b'0159.-e+"[]=\n _xn\xff\x00')
        path.write_bytes(bytes(data[: rng.choice([len(data), len(data), rng.randrange(len(data))])]))
        try:
            table = read_energy(path)
        except TraceError as error:
            assert "\n" not in str(error)
            assert str(error).startswith(str(path))
        else:
            loaded += 1
            watts = [
                *table.compute_w.values(),
                *(w for radio in table.radios.values() for w in astuple(radio)),
            ]
            assert all(0 <= w <= 1e6 for w in watts)
    assert 10 < loaded < 290


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(TraceError, match="cannot be read"):
        read_energy(tmp_path / "none.toml")
