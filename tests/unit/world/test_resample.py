"""A grown fleet has the size, shares, correlations and zones asked for, and moves by whole days only."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from fedsim.errors import TraceError
from fedsim.experiment.recipe_source import load_recipe
from fedsim.seeds import Seeds
from fedsim.world.load import load_population
from fedsim.world.make import synth_fleet
from fedsim.world.resample import Growth, Pairing, _mean_rates, _online_shares

DAY = 86_400


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("templates")
    for name, text in synth_fleet(load_recipe("skewed_edge"), 150, 3, 5).items():
        (out / name).write_text(text)
    return out


@pytest.fixture
def grown(folder):
    def make(state=True, **growth):
        return load_population(
            folder / "devices.csv",
            folder / "bandwidth.csv",
            folder / "availability.csv",
            folder / "state.csv" if state else None,
            growth=Growth(**growth),
        )

    return make


@pytest.fixture
def small(folder):
    return load_population(
        folder / "devices.csv", folder / "bandwidth.csv", folder / "availability.csv", folder / "state.csv"
    )


def ranks(population):
    columns = (
        population.compute_flops, _online_shares(population.intervals), _mean_rates(population.connections)
    )  # fmt: skip
    return spearmanr(np.stack(columns, axis=1)).statistic[np.triu_indices(3, 1)]


def test_the_seed_decides_a_grown_fleet(grown):
    one, same = grown(size=500), grown(size=500)
    assert one.device_ids == same.device_ids
    assert (one.connections.offset_s == same.connections.offset_s).all()
    assert (one.intervals.phase_s == same.intervals.phase_s).all()
    assert len(set(one.device_ids)) == one.num_devices == 500


def test_shares_are_dealt_exactly(grown):
    population = grown(size=1000, shares={"pi-5": 0.25, "phone-mid": 0.75})
    classes = population.device_classes
    assert (classes.count("pi-5"), classes.count("phone-mid")) == (250, 750)
    assert len(set(classes[:10])) == 2


@pytest.mark.parametrize("shares", [{"pi-5": 0.5}, {"pi-5": 1.5, "phone-mid": -0.5}])
def test_shares_that_do_not_add_up_are_refused(grown, shares):
    with pytest.raises(TraceError, match="add up to 1"):
        grown(size=10, shares=shares)


def test_an_unknown_class_is_refused(grown):
    with pytest.raises(TraceError, match='got "toaster"'):
        grown(size=10, shares={"toaster": 1.0})


def test_kept_devices_are_templates_in_other_weeks(grown, small):
    population = grown(size=400)
    known = {(float(a), float(b)) for a, b in zip(small.memory_bytes, small.compute_flops, strict=True)}
    drawn = zip(population.memory_bytes, population.compute_flops, strict=True)
    assert all((float(a), float(b)) in known for a, b in drawn)
    own = small.intervals
    phase_of = dict(zip(own.row.tolist(), own.phase_s.tolist(), strict=True))
    moved = population.intervals.phase_s - [phase_of[row] for row in population.intervals.row.tolist()]
    assert set((moved % DAY).tolist()) == {0}
    assert set((moved // DAY).tolist()) == {0, 1, 2}


def test_the_daily_rhythm_survives_growth(grown, small):
    def rhythm(population):
        counts = [len(population.online(hour * 3600.0)) / population.num_devices for hour in range(72)]
        return np.mean(np.reshape(counts, (3, 24)), axis=0)

    assert np.abs(rhythm(grown(size=5000)) - rhythm(small)).max() < 0.04


def test_a_trace_that_is_not_made_of_days_is_not_shifted(folder, tmp_path):
    (tmp_path / "a.csv").write_text("device_id,start_s,end_s\na,0,40000\n")
    (tmp_path / "a.csv.toml").write_text("period_s = 90000\n")
    (tmp_path / "d.csv").write_text("device_id,device_class,compute_gflops\na,phone-mid,1\n")
    population = load_population(
        tmp_path / "d.csv", folder / "bandwidth.csv", tmp_path / "a.csv", growth=Growth(size=50)
    )
    assert set(population.intervals.phase_s.tolist()) == {0}


def test_devices_that_are_always_online_grow_too(folder):
    files = folder / "devices.csv", folder / "bandwidth.csv", None, None
    grown = load_population(*files, availability_policy="always", growth=Growth(size=300))
    assert grown.num_devices == 300
    assert grown.is_online(0, 10.0 * DAY)


@pytest.mark.parametrize("wanted", [(0.0, 0.0, 0.0), (0.3, 0.5, -0.2), (-0.6, 0.0, 0.4), (1.0, 0.2, 0.2)])
def test_rank_correlations_over_the_fleet_are_those_asked_for(grown, wanted):
    pairing = Pairing("correlated", "fleet", *wanted)
    population = grown(size=20_000, pairing=pairing)
    assert ranks(population) == pytest.approx(wanted, abs=0.04)


def test_independent_parts_have_no_correlation_but_the_marginals_of_the_templates(grown, small):
    population = grown(size=20_000, pairing=Pairing("independent", "fleet"))
    assert ranks(population) == pytest.approx((0, 0, 0), abs=0.03)
    for quantity in (lambda p: p.compute_flops, lambda p: _online_shares(p.intervals)):
        levels = [0.1, 0.25, 0.5, 0.75, 0.9]
        assert np.quantile(quantity(population), levels) == pytest.approx(
            np.quantile(quantity(small), levels), rel=0.15
        )


def test_within_a_class_presence_stays_that_of_the_class(grown, small):
    def boards(population):
        pick = population.class_index == population.class_names.index("pi-5")
        return _online_shares(population.intervals)[pick].mean()

    assert boards(grown(size=5000, pairing=Pairing("independent", "class"))) == pytest.approx(
        boards(small), abs=0.06
    )


def test_correlations_that_contradict_each_other_are_refused(grown):
    with pytest.raises(TraceError, match="possible together"):
        grown(size=10, pairing=Pairing("correlated", "fleet", 0.9, 0.9, -0.9))


def test_time_zones_turn_presence_and_state_together(grown, folder):
    home = grown(size=300)
    away = grown(size=300, zones_h={9: 1.0})
    tz = np.genfromtxt(folder / "devices.csv", delimiter=",", names=True, usecols=10)["tz_offset_s"]
    assert set(((away.intervals.phase_s - 9 * 3600) % DAY).tolist()) == {0}
    assert set(np.unique(home.intervals.phase_s % DAY)) == set(np.unique(tz % DAY))
    assert home.state_shift_s is not None
    assert set((home.state_shift_s % DAY).tolist()) == {0}
    with pytest.raises(TraceError, match="time_zones"):
        grown(size=5, zones_h={1: 0.4})


def test_events_move_with_their_device(grown, small):
    population = grown(size=40)
    index = next(k for k in range(40) if population.state_shift_s[k] and population.state_row[k] >= 0)
    shift = float(population.state_shift_s[index])
    template = small.state_row.tolist().index(int(population.state_row[index]))
    moved, own = population.device(index).memory, small.device(template).memory
    assert [moved.value(t) for t in range(0, 3 * DAY, 5000)] == [
        own.value(t + shift) for t in range(0, 3 * DAY, 5000)
    ]


def test_links_begin_elsewhere_and_have_their_own_factor(grown):
    plain, spread = grown(size=3000), grown(size=3000, scale_ln_sd=0.5)
    factor = np.log(spread.connections.scale / plain.connections.scale)
    assert factor.std() == pytest.approx(0.5, abs=0.03)
    assert len(set(plain.connections.offset_s.tolist())) == 3000


def test_an_idle_device_costs_less_than_two_hundred_bytes(grown):
    import sys

    population = grown(size=20_000)
    rows, links = population.intervals, population.connections
    arrays = [
        population.class_index, population.memory_bytes, population.compute_flops, population.battery_wh,
        population.state_row, population.state_shift_s, rows.row, rows.period_s, rows.phase_s, links.trace,
        links.offset_s, links.scale, links.down_over_up, links.latency_s,
    ]  # fmt: skip
    names = sum(map(sys.getsizeof, population.device_ids)) + sys.getsizeof(population.device_ids)
    assert (sum(array.nbytes for array in arrays) + names) / population.num_devices < 200
    template = grown(size=10)
    assert links.library[0].down.times_s.nbytes == template.connections.library[0].down.times_s.nbytes


def test_nothing_of_the_templates_is_changed(small):
    from fedsim.world.resample import grow_population

    before = replace(small)
    grow_population(small, np.zeros(small.num_devices), Growth(100), Seeds(0))
    assert (before.intervals.phase_s == small.intervals.phase_s).all()
    assert small.state_shift_s is None
