import json
import pickle

import numpy as np
import pytest

from fedsim.world.formats.availability import read_availability

ONLINE = {
    1: {
        "duration": 90,
        "active": [0, 50, 100],
        "inactive": [10, 60, 100],
        "finish_time": 86400,
        "model": "X",
    },
    2: {
        "duration": 5,
        "active": [10, 15, 86000],
        "inactive": [15, 20, 90000],
        "finish_time": 86400,
        "model": "Y",
    },
    7: {"duration": 0, "active": [], "inactive": [], "finish_time": 172800, "model": "=cmd()"},
}
CAPACITY = {
    1: {"computation": 44.0, "communication": 2000.0},
    2: {"computation": 150.0, "communication": 500.0},
    9: {"computation": 10.0, "communication": 500.0},
}


def as_json(content):
    return json.dumps({str(key): value for key, value in content.items()})


@pytest.mark.parametrize("dump", [as_json, pickle.dumps])
def test_stays_are_cleaned_and_counted(convert, written_file, stays, dump):
    written, tables = convert("fedscale", written_file(dump(ONLINE)))
    table = tables["availability"]
    assert stays(table, "fedscale-000002") == [(10, 20), (86_000, 86_400)]
    assert stays(table, "fedscale-000007") == []
    raw = read_availability(written.folder / "availability.csv", merge_gap_s=0)
    assert stays(raw, "fedscale-000001") == [(0, 10), (50, 60)]
    assert written.counts["stays of zero length dropped"] == 1
    assert written.counts["stays that touch or overlap merged"] == 1
    assert written.counts["stays clipped at the end of their window"] == 1
    assert tables["devices"].numbers["availability_period_s"].tolist() == [86_400, 86_400, 172_800]


def test_capacity_becomes_a_speed_and_a_scaled_link(convert, written_file, rates):
    _, tables = convert("fedscale", written_file(as_json(CAPACITY)))
    devices = tables["devices"]
    assert devices.numbers["compute_gflops"] == pytest.approx([60.0, 17.6, 264.0])
    assert devices.numbers["bandwidth_scale"].tolist() == [2.0, 0.5, 0.5]
    assert devices.classes == ("phone-mid", "phone-low", "phone-high")
    assert rates(tables["bandwidth"], "fedscale-1mbps") == ([0], [1.0])
    assert rates(tables["bandwidth"], "fedscale-1mbps", "up") == ([0], [1.0])


def test_both_files_are_joined_by_client(convert, written_file):
    online = written_file(pickle.dumps(ONLINE), "behave")
    capacity = written_file(as_json(CAPACITY), "capacity")
    written, tables = convert("fedscale", online, capacity)
    assert tables["devices"].ids == ("fedscale-000001", "fedscale-000002", "fedscale-000007")
    assert np.isnan(tables["devices"].numbers["compute_gflops"]).tolist() == [False, False, True]
    assert written.counts["capacities of clients without availability dropped"] == 1


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({1: {**ONLINE[1], "finish_time": 86_400_000}}, "are these milliseconds?"),
        ({1: {**ONLINE[1], "inactive": [10]}}, "as many ends as beginnings"),
        ({1: {**ONLINE[1], "inactive": [10, 40, 100]}}, "an end after 50"),
        ({1: {**ONLINE[1], "active": [0, "50", 100]}}, "a number from 0"),
        ({1: {**ONLINE[1], "active": [0, True, 100]}}, "a number from 0"),
        ({1: {"computation": -1, "communication": 5}}, "fedscale-000001.computation"),
        ({1: {"computation": 5, "communication": 0}}, "fedscale-000001.communication"),
        ({1: {"speed": 5}}, "active, inactive, finish_time"),
        ({"a/b": {}}, "client: expected a whole number"),
        ({1: 5}, "expected a dict"),
    ],
)
def test_wrong_content_is_named(refusal, written_file, content, expected):
    assert expected in refusal("fedscale", written_file(as_json(content)))
    assert expected in refusal("fedscale", written_file(pickle.dumps(content)))


def test_a_truncated_file_is_refused(refusal, written_file):
    whole = as_json(ONLINE)
    assert "the end of the file" in refusal("fedscale", written_file(whole[:-20]))
    assert "a whole pickle" in refusal("fedscale", written_file(pickle.dumps(ONLINE)[:-20]))


def test_the_same_file_twice_is_refused(refusal, written_file):
    first, second = written_file(as_json(ONLINE), "a"), written_file(as_json(ONLINE), "b")
    assert "a client that occurs once" in refusal("fedscale", first, second)


def test_pickle_and_json_of_the_published_clients_agree(convert, real):
    folder = real("fedscale_float100")
    pickled, _ = convert(
        "fedscale", folder / "filtered_dict_availabilities.pkl", folder / "filtered_dict.pkl"
    )
    files = {name: (pickled.folder / name).read_bytes() for name in pickled.rows}
    again, tables = convert(
        "fedscale",
        folder / "client_behave_trace_1-100.json",
        folder / "client_device_capacity_1-100.json",
    )
    assert {name: (again.folder / name).read_bytes() for name in again.rows} == files
    assert again.counts["stays of zero length dropped"] == 10
    # 6,306 intervals less those of zero length, and less those that touch.
    merged = again.counts["stays that touch or overlap merged"]
    assert again.rows["availability.csv"] == 6306 - 10 - merged
    table = read_availability(again.folder / "availability.csv", merge_gap_s=0)
    online_s = np.add.reduceat(table.ends_s - table.starts_s, table.offsets[:-1])
    share = online_s / tables["devices"].numbers["availability_period_s"]
    assert (share.min(), share.max()) == pytest.approx((0.44, 0.97), abs=0.005)
    speeds = 60 * 44 / tables["devices"].numbers["compute_gflops"]
    # Between 44 and 49 ms at the middle: the lower one is on record.
    assert np.quantile(speeds, [0.05, 0.5, 0.95], method="lower") == pytest.approx([18, 44, 192], abs=1)
    mbps = tables["devices"].numbers["bandwidth_scale"]
    assert np.quantile(mbps, [0.05, 0.5, 0.95]) == pytest.approx([1.1, 5.3, 42], rel=0.04)
