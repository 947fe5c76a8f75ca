"""Statistics are right where the answer is known, and match published figures where samples are at hand."""

import os
from pathlib import Path

import numpy as np
import pytest

from fedsim.world.formats.availability import read_availability
from fedsim.world.formats.bandwidth import read_bandwidth
from fedsim.world.statistics import (
    availability_statistics,
    bandwidth_statistics,
    cut_from_online,
    cut_from_start,
)

DAY = 86_400
HOURLY = [
    0.306, 0.331, 0.347, 0.355, 0.357, 0.347, 0.321, 0.276, 0.229, 0.200, 0.181, 0.170,
    0.160, 0.157, 0.158, 0.158, 0.162, 0.162, 0.163, 0.168, 0.175, 0.192, 0.226, 0.267,
]  # fmt: skip


@pytest.fixture
def availability(tmp_path):
    def make(rows, period_s=DAY, gap_s=0.0):
        path = tmp_path / "a.csv"
        path.write_text("device_id,start_s,end_s\n" + "".join(f"{d},{a},{b}\n" for d, a, b in rows))
        Path(f"{path}.toml").write_text(f"period_s = {period_s}\n")
        return read_availability(path, merge_gap_s=gap_s)

    return make


@pytest.fixture
def bandwidth(tmp_path):
    def make(rows, header="trace_id,time_s,down_mbps"):
        path = tmp_path / "b.csv"
        path.write_text(header + "\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))
        return read_bandwidth(path)

    return make


def test_shares_hours_and_lengths_of_a_small_fleet(availability):
    table = availability([("a", 0, 1800), ("a", 7200, 10_800), ("b", 7200, 9000)])
    found = availability_statistics(table)
    assert found.num_devices == 2
    assert found.online_share == pytest.approx(7200 / (2 * DAY))
    assert found.hourly_share[0] == pytest.approx(0.25)
    assert found.hourly_share[2] == pytest.approx(0.75)
    assert sum(found.hourly_share) == pytest.approx(24 * found.online_share)
    assert found.diurnal_ratio is None
    assert found.session_mean_s == pytest.approx(2400)
    assert found.gap_s[0.5] == 5400
    assert found.sessions_per_day == 1.5


def test_each_row_may_have_its_own_period(availability):
    table = availability([("a", 0, 3600), ("b", 0, 3600)], period_s=2 * DAY)
    found = availability_statistics(table, np.array([DAY, 2 * DAY]))
    assert found.online_share == pytest.approx(7200 / (3 * DAY))
    assert found.hourly_share[0] == pytest.approx(2 / 3)
    assert found.share_mean == pytest.approx((1 / 24 + 1 / 48) / 2)


def test_chances_of_being_cut_by_hand():
    sessions = np.array([60.0, 600.0, 3600.0])
    assert cut_from_start(sessions, 300) == pytest.approx(1 / 3)
    assert cut_from_online(sessions, 300) == pytest.approx((60 + 300 + 300) / 4260)
    assert cut_from_online(sessions, 1e9) == 1


def test_cut_from_online_is_what_drawing_instants_gives():
    rng = np.random.default_rng(0)
    sessions = np.exp(rng.normal(7, 1.5, 300))
    ends = np.cumsum(sessions)
    at = rng.random(200_000) * ends[-1]
    left = ends[np.searchsorted(ends, at)] - at
    assert cut_from_online(sessions, 1800.0) == pytest.approx(np.mean(left < 1800), abs=0.005)


def test_short_sessions_leave_lengths_but_not_shares(availability):
    table = availability([("a", 0, 30), ("a", 3600, 7200)])
    assert availability_statistics(table, min_session_s=60).session_s[0.5] == 3600
    assert availability_statistics(table, min_session_s=60).online_share == pytest.approx(3630 / DAY)


def test_rates_are_weighted_by_time(bandwidth):
    found = bandwidth_statistics(bandwidth([("t", 0, 1), ("t", 1, 4), ("t", 4, 0), ("t", 5, 2), ("t", 6, 2)]))
    down = found.down
    assert down.mean_mbps == pytest.approx((1 + 3 * 4 + 0 + 2 + 2) / 7)
    assert down.rate_mbps[0.5] == 2
    assert down.outage_share == pytest.approx(1 / 7)
    assert down.outage_mean_s == 1
    assert down.between_outages_s == pytest.approx((4 + 2) / 2)
    assert found.up is None
    assert found.down_over_up is None


def test_up_and_round_trip_where_measured(bandwidth):
    rows = [("t", 0, 4, 2, 40), ("t", 1, 4, 2, 60), ("u", 0, 9, 1, ""), ("u", 1, 9, 1, "")]
    found = bandwidth_statistics(bandwidth(rows, "trace_id,time_s,down_mbps,up_mbps,rtt_ms"))
    assert found.down_over_up == pytest.approx(5.5)
    assert found.rtt_ms == 50
    assert found.up is not None
    assert found.up.mean_mbps == pytest.approx(1.5)


def test_autocorrelation_of_a_known_process(bandwidth):
    rng = np.random.default_rng(1)
    log = np.empty(8000)
    log[0] = 0
    noise = rng.standard_normal(8000)
    for k in range(1, 8000):
        log[k] = 0.95 * log[k - 1] + np.sqrt(1 - 0.95**2) * noise[k]
    found = bandwidth_statistics(bandwidth([("t", k, f"{np.exp(v):.6g}") for k, v in enumerate(log)]))
    memory = found.down.autocorrelation
    assert memory[1] == pytest.approx(0.95, abs=0.02)
    assert memory[10] == pytest.approx(0.95**10, abs=0.06)
    assert memory[60] == pytest.approx(0.95**60, abs=0.1)


def test_a_lag_below_the_step_has_no_autocorrelation(bandwidth):
    memory = bandwidth_statistics(
        bandwidth([("t", 5 * k, 1 + k % 3) for k in range(200)])
    ).down.autocorrelation
    assert memory[1] is None
    assert memory[10] is not None


def test_the_published_phones_have_the_published_figures(tmp_path):
    from fedsim.world.importers.rows import Choices
    from fedsim.world.importers.run import import_published

    root = Path(__file__).parents[3]
    folder = (
        Path(os.environ.get("FEDSIM_REAL_TRACES", root.parent / "shared" / "traces_real")) / "stunner_golf"
    )
    if not folder.exists():
        pytest.skip(f"real trace samples are not here: {folder}")
    from fedsim.cli.traces_stats import row_periods

    _, written = import_published("stunner", [folder], tmp_path / "out", Choices(), force=False)
    path = written.folder / "availability.csv"
    merged = read_availability(path)
    raw = read_availability(path, merge_gap_s=0)
    found = availability_statistics(raw, row_periods(raw, None))
    assert found.online_share == pytest.approx(0.232, abs=0.0005)
    assert found.hourly_share == pytest.approx(HOURLY, abs=0.0006)
    assert found.diurnal_ratio == pytest.approx(2.27, abs=0.005)
    cleaned = availability_statistics(merged, row_periods(merged, None), min_session_s=60)
    assert cleaned.sessions_per_day == pytest.approx(2.7, abs=0.05)
    assert [cleaned.session_s[level] for level in (0.1, 0.5, 0.9, 0.99)] == pytest.approx(
        [219, 2181, 23_874, 51_627], rel=0.005
    )
    assert list(cleaned.cut_from_start.values()) == pytest.approx([0.14, 0.24, 0.46, 0.61], abs=0.0075)
    assert list(cleaned.cut_from_online.values()) == pytest.approx([0.04, 0.07, 0.17, 0.28], abs=0.0075)
