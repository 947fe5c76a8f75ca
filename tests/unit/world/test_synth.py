"""The generators reproduce the statistics that they were fitted to, within wide but telling bounds."""

import numpy as np
import pytest

from fedsim.errors import TraceError
from fedsim.experiment.recipe_source import load_recipe, recipe_names
from fedsim.seeds import Seeds
from fedsim.world.calibration import LEVELS, NETWORKS, PRESENCE
from fedsim.world.formats.state import read_state
from fedsim.world.make import synth_fleet
from fedsim.world.synth import (
    DAY_S,
    Battery,
    Disturbance,
    synth_battery,
    synth_disturbances,
    synth_presence,
    synth_rates,
)


@pytest.fixture(scope="module")
def phones():
    return synth_presence(2000, 7, PRESENCE["phone"], Seeds(1).generator("t"))


def test_phones_are_online_as_long_and_as_often_as_measured(phones):
    length = phones.ends_s - phones.starts_s
    share = np.bincount(phones.device, weights=length, minlength=2000) / (7 * DAY_S)
    assert share.mean() == pytest.approx(0.243, abs=0.03)
    assert np.percentile(share, [25, 50, 75]) == pytest.approx([0.104, 0.213, 0.354], abs=0.05)
    assert len(length) / 2000 / 7 == pytest.approx(2.7, abs=0.3)
    assert 1000 < np.median(length) < 2600
    assert np.percentile(length, 99) > 10 * np.median(length)


def test_phones_follow_the_night(phones):
    hours = np.arange(7 * 24)
    online = [((phones.starts_s <= h * 3600) & (h * 3600 < phones.ends_s)).sum() for h in hours]
    rhythm = np.reshape(online, (7, 24)).mean(axis=0)
    assert 1.7 < rhythm.max() / rhythm.min() < 2.5
    assert rhythm.argmax() in range(2, 8)
    assert rhythm.argmin() in range(11, 20)


def test_stays_are_sorted_apart_and_inside_the_period(phones):
    same = phones.device[1:] == phones.device[:-1]
    assert (phones.ends_s > phones.starts_s).all()
    assert (phones.starts_s[1:] >= phones.ends_s[:-1])[same].all()
    assert (phones.device[1:] >= phones.device[:-1]).all()
    assert phones.starts_s.min() == 0
    assert phones.ends_s.max() == 7 * DAY_S


@pytest.mark.parametrize(
    ("name", "mean", "percentiles"),
    [
        ("3g", 1.18, (0.06, 0.99, 3.12)),
        ("lte-poor", 6.2, (0.41, 4.2, 17.4)),
        ("lte", 30.2, (5.6, 29.4, 57.3)),
        ("lte-good", 40.4, (3, 30, 110)),
        ("5g-mmwave", 523, (8, 429, 1390)),
    ],
)
def test_rates_have_the_measured_marginal(name, mean, percentiles):
    rates = synth_rates(NETWORKS[name], 200, 600, 1.0, Seeds(2).generator(name)).down_mbps
    assert rates.mean() == pytest.approx(mean, rel=0.25)
    assert np.percentile(rates, [50, 95]) == pytest.approx(percentiles[1:], rel=0.35)
    assert np.percentile(rates, 5) < 2 * percentiles[0]


def test_rates_remember_seconds_and_forget_minutes():
    rates = synth_rates(NETWORKS["lte-good"], 100, 900, 1.0, Seeds(3).generator("t")).down_mbps
    log = np.log(np.where(rates > 0.1, rates, np.nan))
    log -= np.nanmean(log, axis=0)

    def acf(lag):
        return np.nanmean(log[lag:] * log[:-lag]) / np.nanmean(log**2)

    assert acf(1) == pytest.approx(0.87, abs=0.08)
    assert acf(10) == pytest.approx(0.66, abs=0.12)
    assert abs(acf(200)) < 0.2


def test_outages_have_the_measured_share():
    family = NETWORKS["3g"]
    rates = synth_rates(family, 200, 900, 1.0, Seeds(4).generator("t"))
    share = (rates.down_mbps == 0).mean()
    assert share == pytest.approx(family.outage_s / (family.outage_s + family.up_s), rel=0.15)
    assert ((rates.down_mbps == 0) == (rates.up_mbps == 0)).all()


def test_uplink_is_slower_by_the_ratio_of_its_family():
    rates = synth_rates(NETWORKS["lte"], 400, 60, 1.0, Seeds(5).generator("t"))
    ratio = np.log(rates.down_mbps[0] / rates.up_mbps[0])
    assert np.median(ratio) == pytest.approx(1.2, abs=0.2)


def test_quantile_tables_increase():
    for family in NETWORKS.values():
        assert len(family.quantiles) == len(LEVELS)
        assert (np.diff(family.quantiles) > 0).all()


def test_a_battery_fills_on_the_charger_and_empties_off_it():
    battery = Battery(PRESENCE["phone"], hours_to_full=1.0, hours_to_empty=10.0)
    # On the charger from 1 h to 2 h of 13: full at the end of it, empty after another ten.
    times, levels = synth_battery(battery, np.array([3600.0]), np.array([7200.0]), 13 * 3600.0)
    assert np.interp(7200, times, levels) == pytest.approx(100.0)
    assert (np.diff(times) > 0).all()
    assert times[0] == 0
    assert levels[0] == levels[-1] == 0.0
    assert np.interp(5400, times, levels) == pytest.approx(50.0)
    assert np.interp(7200 + 5 * 3600, times, levels) == pytest.approx(50.0)
    assert levels.tolist() == pytest.approx([0, *range(0, 101, 10), *range(90, -1, -10)])


def test_battery_charger_and_network_of_a_fleet(tmp_path):
    files = synth_fleet(load_recipe("everyday"), 40, 2, 3)
    (tmp_path / "state.csv").write_text(files["state.csv"])
    (tmp_path / "state.csv.toml").write_text(files["state.csv.toml"])
    state = read_state(tmp_path / "state.csv")
    assert set(state.events) == {"battery_pct", "charging", "network"}
    assert state.origin.notes == ()
    for row in range(40):
        plugged_at, plugged = state.events["charging"].of(row)
        at, level = state.events["battery_pct"].of(row)
        assert plugged_at[0] == at[0] == state.events["network"].of(row)[0][0] == 0
        held = plugged[np.searchsorted(plugged_at, at[:-1], side="right") - 1] == 1
        assert (np.diff(level)[held] >= 0).all()
        assert (np.diff(level)[~held] <= 0).all()


def test_disturbances_leave_a_share_and_end_free():
    kind = Disturbance(10.0, 1800.0, 1.0, (0.2, 0.5))
    times, left = synth_disturbances(kind, 7, 3600, Seeds(6).generator("t"))
    assert (np.diff(times) > 0).all()
    assert ((left >= 0.1) & (left <= 1)).all()
    assert left[-1] == 1
    assert left.min() < 0.8
    local = (times + 3600) % DAY_S
    assert ((local > 8 * 3600) & (local < 24 * 3600)).mean() > 0.7


def test_a_recipe_deals_classes_by_their_shares():
    rows = synth_fleet(load_recipe("skewed_edge"), 100, 1, 0)["devices.csv"].splitlines()[1:]
    classes = [row.split(",")[1] for row in rows]
    for name, made in load_recipe("skewed_edge").classes.items():
        assert classes.count(name) == pytest.approx(100 * made.share, abs=1)
    assert len(set(classes[:10])) > 2  # mixed, so that the first few are a small fleet too


def test_shares_of_a_recipe_add_up():
    for recipe in map(load_recipe, recipe_names()):
        assert sum(made.share for made in recipe.classes.values()) == pytest.approx(1)
        assert sum(recipe.zones_h.values()) == pytest.approx(1)
        for made in recipe.classes.values():
            assert sum(made.networks.values()) == pytest.approx(1)
            assert set(made.networks) <= set(recipe.library) <= set(recipe.families)


def test_the_seed_decides_everything():
    one, same, other = (synth_fleet(load_recipe("skewed_edge"), 12, 1, seed) for seed in (0, 0, 1))
    assert one == same
    assert all(
        one[name] != other[name] for name in ("devices.csv", "availability.csv", "bandwidth.csv", "state.csv")
    )


def test_impossible_requests_are_refused():
    with pytest.raises(TraceError, match="expected one of everyday, gateways, phones, skewed_edge"):
        load_recipe("moon")
    with pytest.raises(TraceError, match="at least one device"):
        synth_fleet(load_recipe("skewed_edge"), 0, 1, 0)
