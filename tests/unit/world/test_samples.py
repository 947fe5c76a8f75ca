"""Real traces in canonical form, where they are at hand, and the shipped fleet."""

import os
from pathlib import Path

import numpy as np
import pytest

from fedsim.world.load import load_population

ROOT = Path(__file__).parents[3]
REAL = (
    Path(os.environ.get("FEDSIM_REAL_TRACES", ROOT.parent / "shared" / "traces_real")) / "canonical_examples"
)
SHIPPED = ROOT / "traces" / "skewed_edge"

needs_real = pytest.mark.skipif(
    not REAL.is_dir(),
    reason=f"real samples are not part of the project; set FEDSIM_REAL_TRACES (looked in {REAL})",
)


@needs_real
def test_real_samples_make_a_fleet():
    fleet = load_population(REAL / "devices.csv", REAL / "bandwidth.csv", REAL / "availability.csv")
    assert fleet.num_devices == 4
    first = fleet.device(0).availability
    assert first.next_departure_s(10_596) == 12_823
    assert first.next_return_s(12_823) == 12_885
    assert first.is_online(950_400 + 12_900)  # the second pass
    assert fleet.device(0).downlink.rate_bps(0) == 3.97e6
    for k in range(fleet.num_devices):
        device = fleet.device(k)
        end = device.uplink.transfer_end_s(0, 5_000_000)
        assert device.uplink.bytes_between(0, end) == pytest.approx(5_000_000)


@pytest.fixture(scope="module")
def shipped():
    files = (SHIPPED / f"{name}.csv" for name in ("devices", "bandwidth", "availability", "state"))
    return load_population(*files)


def test_the_shipped_fleet_is_skewed(shipped):
    assert shipped.num_devices == 200
    assert len(shipped.class_names) == 7
    assert shipped.notes == ()
    for values in (shipped.memory_bytes, shipped.compute_flops):
        low, high = np.percentile(values, [5, 95])
        assert high > 4 * low
    down = [shipped.device(k).downlink.transfer_end_s(0, 22e6) for k in range(200)]
    assert np.percentile(down, 95) > 20 * np.percentile(down, 50)


def test_a_cohort_that_can_hold_a_small_llama_is_there_at_any_hour(shipped):
    for hour in range(0, 168, 3):
        t = hour * 3600.0
        able = [k for k in shipped.online(t).tolist() if shipped.device(k).memory.value(t) > 4.2e9]
        assert len(able) >= 20


def test_the_shipped_folder_is_small():
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 4_000_000
