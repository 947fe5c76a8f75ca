"""Large seeded draws meet the figures that the generators were fitted to; tolerances say how well they do.

Sources of the figures: availability 1.1 and 1.3 as in `calibration`, rates at one second per family.
"""

from dataclasses import replace

import numpy as np
import pytest

from fedsim.seeds import Seeds
from fedsim.world.calibration import NETWORKS, PRESENCE
from fedsim.world.formats.records import AvailabilityTable, Origin
from fedsim.world.statistics import availability_statistics, rate_statistics
from fedsim.world.synth import DAY_S, synth_presence, synth_rates
from fedsim.world.trace import StepTrace

NUM, DAYS = 3000, 7


def table(presence, seed):
    stays = synth_presence(NUM, DAYS, presence, Seeds(seed).generator("t"))
    offsets = np.searchsorted(stays.device, np.arange(NUM + 1))
    names = tuple(f"d{k}" for k in range(NUM))
    starts, ends = stays.starts_s.astype(float), stays.ends_s.astype(float)
    return AvailabilityTable(names, offsets, starts, ends, DAYS * DAY_S, True, 0.0, Origin("x", "0"))


@pytest.fixture(scope="module")
def phones():
    return availability_statistics(table(PRESENCE["phone"], 11))


def test_online_shares(phones):
    assert phones.share_mean == pytest.approx(0.243, abs=0.02)
    wanted = {0.05: 0.009, 0.25: 0.104, 0.50: 0.213, 0.75: 0.354, 0.95: 0.575}
    for level, share in wanted.items():
        assert phones.share_quantiles[level] == pytest.approx(share, abs=0.055)


def test_sessions(phones):
    assert phones.sessions_per_day == pytest.approx(2.7, abs=0.15)
    # The generator knows no sessions of a few minutes' flaps: short quantiles are longer than measured.
    assert phones.session_s[0.50] == pytest.approx(3660, rel=0.1)
    assert phones.session_s[0.90] == pytest.approx(23_874, rel=0.2)
    assert phones.session_s[0.99] == pytest.approx(51_627, rel=0.35)


def test_the_daily_rhythm(phones):
    hours = np.array(phones.hourly_share)
    assert phones.diurnal_ratio == pytest.approx(2.27, abs=0.3)
    assert hours.argmax() in range(3, 6)
    assert hours.argmin() in range(12, 19)


def test_a_stronger_rhythm_is_stronger():
    ratios = []
    for diurnal in (0.0, 1.4, 2.4):
        presence = replace(PRESENCE["phone"], diurnal=diurnal)
        ratios.append(availability_statistics(table(presence, 3)).diurnal_ratio)
    assert ratios[0] < 1.15
    assert 1.8 < ratios[1] < ratios[2]
    assert 2.8 < ratios[2] < 4.6  # a population of one time zone with the fourfold swing that servers report


FAMILIES = [  # mean, p5, p50, p95, autocorrelation at 1, 10, 30 s, outage share
    ("3g", 1.18, 0.06, 0.99, 3.12, 0.82, 0.43, 0.22, 0.071),
    ("lte-poor", 6.2, 0.41, 4.2, 17.4, 0.78, 0.52, 0.29, 0.026),
    ("lte", 30.2, 5.6, 29.4, 57.3, 0.71, 0.41, 0.23, 0.0069),
    ("lte-good", 40.4, 3.0, 30.0, 110.0, 0.89, 0.69, 0.45, 0.0096),
    ("5g-mmwave", 523.0, 8.0, 429.0, 1390.0, 0.79, 0.40, 0.14, 0.025),
    ("5g", 72.0, 0.01, 37.0, 231.0, 0.81, 0.41, 0.31, 0.064),
]


@pytest.mark.parametrize("row", FAMILIES, ids=lambda row: row[0])
def test_rates(row):
    name, mean, p5, p50, p95, *memory, outage = row
    made = synth_rates(NETWORKS[name], 200, 900, 1.0, Seeds(7).generator(name)).down_mbps
    times = np.arange(900.0)
    found = rate_statistics([StepTrace(times, made[:, k] * 1e6, 900.0) for k in range(200)], 0.1)
    assert found.mean_mbps == pytest.approx(mean, rel=0.2)
    assert found.rate_mbps[0.50] == pytest.approx(p50, rel=0.25)
    assert found.rate_mbps[0.95] == pytest.approx(p95, rel=0.35)
    assert found.rate_mbps[0.05] == pytest.approx(p5, rel=0.6, abs=0.1)
    for lag, wanted in zip((1, 10, 30), memory, strict=True):
        assert found.autocorrelation[lag] == pytest.approx(wanted, abs=0.13)
    # The chain follows the measured lengths of outages and of the time between them, which for lte stand for
    # 1.2 %, not 0.7 %: traces without any outage have no time between two.
    assert found.outage_share == pytest.approx(outage, rel=0.35, abs=0.006)
