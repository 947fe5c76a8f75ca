# ruff: noqa: E501  headers of CSV files
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsim.errors import TraceError
from fedsim.world.load import load_population

MIB = 2**20
DEVICES = "device_id,device_class,compute_gflops,mem_available_mib,availability_id,bandwidth_id,tz_offset_s,bandwidth_offset_s,bandwidth_scale,availability_period_s\n"
ROWS = "a,phone-mid,50,1000,,slow,,,,\nb,phone-mid,,,a,slow,10,1,2,\nc,jetson-orin-nano,,,c,fast,,,,400\n"
AVAILABILITY = "device_id,start_s,end_s\na,0,20\na,80,100\nc,50,150\nc,250,300\n"
BANDWIDTH = "trace_id,time_s,down_mbps,up_mbps,rtt_ms\nslow,0,1,,\nslow,1,3,,\nfast,0,80,40,20\n"
STATE = "device_id,time_s,key,value\na,5,mem_available_mib,500\na,9,mem_available_mib,1000\nc,0,compute_factor,0.5\n"


@pytest.fixture
def fleet(tmp_path):
    files = {"devices": DEVICES + ROWS, "availability": AVAILABILITY, "bandwidth": BANDWIDTH, "state": STATE}

    def load(without=(), sidecar="period_s = 300", **options):
        for name, text in files.items():
            (tmp_path / f"{name}.csv").write_text(text)
        (tmp_path / "availability.csv.toml").write_text(f'source = "generated here"\n{sidecar}\n')
        paths = {name: tmp_path / f"{name}.csv" for name in files if name not in without}
        return load_population(**paths, **options)

    load.files = files
    return load


def test_devices_are_built_from_row_class_and_events(fleet):
    population = fleet()
    assert population.device_ids == ("a", "b", "c")
    assert population.device_classes == ("phone-mid", "phone-mid", "jetson-orin-nano")
    a, b, c = (population.device(k) for k in range(3))
    assert [a.memory.value(t) for t in (0, 5, 9)] == [1000 * MIB, 500 * MIB, 1000 * MIB]
    assert (a.compute.value(0), b.compute.value(0), c.compute.value(0)) == (50e9, 60e9, 500e9)
    assert b.memory.value(0) == 4.5 * 1024 * MIB
    assert (a.battery_wh, c.battery_wh) == (15.4, None)
    assert c.compute_end_s(0, 500e9) == 1


def test_links_share_the_library_with_offset_scale_and_latency(fleet):
    population = fleet(latency_s=0.2)
    a, b, c = (population.device(k) for k in range(3))
    assert b.downlink.trace.times_s is a.downlink.trace.times_s
    assert [a.downlink.rate_bps(t) for t in (0, 1)] == [1e6, 3e6]
    assert [b.downlink.rate_bps(t) for t in (0, 1)] == [6e6, 2e6]
    assert (c.uplink.rate_bps(0), c.uplink.latency_s, a.uplink.latency_s) == (40e6, 0.01, 0.2)
    assert fleet(bandwidth_scale=0.5).device(0).downlink.rate_bps(0) == 0.5e6


def test_uplink_ratio_is_drawn_per_device_and_seed(fleet):
    def ratio(k, **options):
        device = fleet(**options).device(k)
        return device.downlink.rate_bps(0) / device.uplink.rate_bps(0)

    assert ratio(0) == ratio(0)
    assert ratio(0) != pytest.approx(ratio(1))
    assert ratio(0) != pytest.approx(ratio(0, seed=1))
    assert 0.1 < ratio(0) < 20


def test_availability_wraps_per_device_and_shifts_with_the_time_zone(fleet):
    population = fleet()
    assert population.device(0).availability.next_return_s(20) == 80
    assert population.online(0).tolist() == [0, 1]
    assert population.online(15).tolist() == [0]
    assert population.online(71).tolist() == [1, 2]
    assert population.online(450).tolist() == [2]  # its own period is 400
    assert population.online(300).tolist() == [0, 1]


def test_start_moves_every_trace(fleet):
    population = fleet(start_s=5)
    a = population.device(0)
    assert a.memory.value(0) == 500 * MIB
    assert a.downlink.rate_bps(0) == 3e6
    assert a.availability.next_departure_s(0) == 15


def test_without_loop_everybody_is_gone_in_the_end(fleet):
    population = fleet(loop=False)
    assert population.online(301).tolist() == []
    assert population.next_arrival_s(301) == math.inf
    assert fleet(sidecar="loop = false").next_arrival_s(301) == math.inf


def test_policies_for_missing_rows(fleet):
    fleet.files["availability"] = "device_id,start_s,end_s\na,0,20\n"
    with pytest.raises(TraceError, match=r'devices\.csv:4: availability_id: expected rows of "c"'):
        fleet()
    always = fleet(availability_policy="always")
    assert always.online(250).tolist() == [2]
    assert always.device(2).availability.next_departure_s(0) == math.inf
    assert fleet(availability_policy="never").device(2).availability.next_return_s(0) == math.inf


def test_without_an_availability_file_the_policy_must_say_always(fleet):
    with pytest.raises(TraceError, match="expected a file, found none"):
        fleet(without=["availability"])
    population = fleet(without=["availability"], availability_policy="always")
    assert population.online(1e9).tolist() == [0, 1, 2]
    assert population.next_arrival_s(0) == math.inf


def test_unknown_references_and_values_name_the_line(fleet):
    fleet.files["devices"] = DEVICES + "a,phone-mid,,,,dsl,,,,\n"
    with pytest.raises(TraceError, match=r'devices\.csv:2: bandwidth_id: expected a trace of .*, got "dsl"'):
        fleet()
    fleet.files["devices"] = DEVICES + "a,toaster,,,,slow,,,,\n"
    with pytest.raises(
        TraceError, match=r":2: mem_available_mib: expected a value, or a class with a default"
    ):
        fleet()
    assert fleet(class_defaults={"toaster": (1e9, 2e9)}).device(0).compute.value(0) == 2e9
    fleet.files["devices"] = DEVICES + "a,phone-mid,,,,slow,,,,90\n"
    with pytest.raises(TraceError, match=r":2: availability_period_s: expected at least 100"):
        fleet()


def test_speed_in_tokens_needs_the_price_of_a_token(fleet):
    fleet.files["devices"] = "device_id,device_class,train_tokens_per_s\na,phone-mid,50\n"
    with pytest.raises(TraceError, match="flops_per_token"):
        fleet()
    assert fleet(flops_per_token=4e9).device(0).compute.value(0) == 200e9


def test_devices_without_a_trace_draw_one_and_it_is_said(fleet):
    fleet.files["devices"] = "device_id,device_class,compute_gflops\na,phone-mid,50\n"
    population = fleet()
    assert any("1 devices without bandwidth_id" in note for note in population.notes)
    assert any("events of 1 devices that are not in the fleet" in note for note in population.notes)
    assert population.connections.offset_s[0] == fleet().connections.offset_s[0]


def test_limit_takes_the_first_devices(fleet):
    population = fleet(limit=2)
    assert population.device_ids == ("a", "b")
    assert population.online(0).tolist() == [0, 1]


def test_hashes_of_all_files_are_kept(fleet):
    assert sorted(path.rpartition("/")[2] for path in fleet().file_hashes) == [
        "availability.csv", "bandwidth.csv", "devices.csv", "state.csv",
    ]  # fmt: skip


def test_whole_days_keep_the_rhythm(fleet):
    day = 86400
    fleet.files["availability"] = f"device_id,start_s,end_s\na,0,{day}\nc,10,20\n"
    fleet.files["devices"] = DEVICES + "".join(f"d{k},phone-mid,,,a,slow,,,,\n" for k in range(30))
    phases = fleet(sidecar=f"period_s = {7 * day}", spread_days=True).intervals.phase_s
    assert set(phases % day) == {0}
    assert len(set(phases)) > 3


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_fleet_answers_equal_those_of_each_device(tmp_path_factory, data):
    cuts = st.sets(st.integers(0, 300), min_size=2, max_size=10).map(sorted)
    rows = data.draw(st.lists(cuts, min_size=1, max_size=6))
    text = "device_id,start_s,end_s\n"
    for k, row in enumerate(rows):
        text += "".join(f"d{k},{a},{b}\n" for a, b in zip(row[::2], row[1::2], strict=False))
    folder = tmp_path_factory.mktemp("fleet")
    (folder / "a.csv").write_text(text)
    shifts = data.draw(st.lists(st.integers(-400, 400), min_size=len(rows), max_size=len(rows)))
    lines = "".join(f"d{k},phone-mid,1,{shift}\n" for k, shift in enumerate(shifts))
    (folder / "d.csv").write_text("device_id,device_class,compute_gflops,tz_offset_s\n" + lines)
    (folder / "b.csv").write_text("trace_id,time_s,down_mbps\nt,0,1\n")
    loop = data.draw(st.booleans())
    population = load_population(
        folder / "d.csv", folder / "b.csv", folder / "a.csv", merge_gap_s=0, loop=loop
    )
    t = data.draw(st.integers(0, 2000))
    own = [population.device(k).availability for k in range(len(rows))]
    assert population.online(t).tolist() == [k for k, a in enumerate(own) if a.is_online(t)]
    arrivals = [u for a in own for u in range(t + 1, t + 1200) if a.is_online(u) and not a.is_online(u - 1)]
    assert population.next_arrival_s(t) == min(arrivals, default=math.inf)
    chosen = np.arange(0, len(rows), 2)
    assert population.online(t, chosen).tolist() == [k for k in chosen.tolist() if own[k].is_online(t)]


def test_ten_thousand_devices_are_asked_in_milliseconds(tmp_path):
    rng = np.random.default_rng(0)
    num, per = 10_000, 20
    starts = np.sort(rng.integers(0, 600_000, (num, per)), axis=1)
    ids = np.repeat([f"d{k}" for k in range(num)], per)
    rows = zip(ids, starts.ravel(), (starts + 900).ravel(), strict=True)
    (tmp_path / "a.csv").write_text(
        "device_id,start_s,end_s\n" + "".join(f"{i},{a},{b}\n" for i, a, b in rows)
    )
    lines = "".join(f"d{k},phone-mid,1\n" for k in range(num))
    (tmp_path / "d.csv").write_text("device_id,device_class,compute_gflops\n" + lines)
    (tmp_path / "b.csv").write_text("trace_id,time_s,down_mbps\nt,0,1\n")
    population = load_population(tmp_path / "d.csv", tmp_path / "b.csv", tmp_path / "a.csv")
    best = math.inf
    for t in range(5):
        begin = time.perf_counter()
        population.online(t * 50_000.0)
        best = min(best, time.perf_counter() - begin)
    assert best < 0.05  # a few milliseconds; the bound leaves room for a busy machine
