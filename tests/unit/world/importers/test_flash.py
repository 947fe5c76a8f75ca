import json

import numpy as np
import pytest

from fedsim.world.formats.availability import read_availability

LOG = """2020-01-31 08:00:00\twifi
2020-01-31 08:10:00\tSCREEN_LOCK
2020-01-31 08:20:00\tbattery_charged_on
2020-01-31 08:20:00\t55%
2020-01-31 09:00:00\t4G
2020-01-31 09:30:00\tscreen_unlock
2020-01-31 09:40:00\tscreen_lock
2020-01-31 10:00:00\tunknown
2020-01-31 11:00:00\tscreen_on
2020-02-01 00:30:00\tbattery_charged_off
"""
H = 3600
SPEED = {"down_u": 1000.0, "down_sigma": 0.0, "up_u": 500.0, "up_sigma": 100.0}


def phones(**logs):
    return json.dumps({key: {"guid": "g", "model": "m", "messages": log} for key, log in logs.items()})


def test_a_log_becomes_stays_events_and_a_device(convert, written_file, stays):
    written, tables = convert("flash", written_file(phones(a=LOG)))
    path = written.folder / "availability.csv"
    both = read_availability(path, merge_gap_s=0)
    assert stays(both, "flash-a") == [(8 * H + 600, 9.5 * H), (9 * H + 2400, 10 * H)]
    ready = read_availability(path, merge_gap_s=0, unmetered_only=True, charging_only=True)
    assert stays(ready, "flash-a") == [(8 * H + 1200, 9 * H)]
    assert tables["devices"].numbers["availability_period_s"].tolist() == [2 * 86_400]
    state = tables["state"]
    assert state.events["charging"].of(0)[0].tolist() == [8 * H + 1200, 24.5 * H]
    assert state.events["battery_pct"].of(0)[1].tolist() == [55]
    assert state.events["network"].of(0)[0].tolist() == [8 * H, 9 * H, 10 * H]


def test_a_phone_that_never_locks_stays_in_the_file(convert, written_file, stays):
    path = written_file(phones(a=LOG, b="2020-01-31 08:00:00\twifi\n2020-01-31 09:00:00\tnonsense\n", c=""))
    written, tables = convert("flash", path)
    assert stays(tables["availability"], "flash-b") == []
    assert written.counts["messages with an unknown state ignored"] == 1
    assert written.counts["phones without any message dropped"] == 1


def test_messages_out_of_order_are_sorted(convert, written_file, stays):
    backward = "\n".join(reversed(LOG.strip().splitlines()[:4]))
    _, tables = convert("flash", written_file(phones(a=LOG[: LOG.index("2020-01-31 09:00")])))
    _, again = convert("flash", written_file(phones(a=backward), "again"))
    assert stays(tables["availability"], "flash-a") == stays(again["availability"], "flash-a")


def test_speeds_are_drawn_above_zero_and_from_the_seed(convert, written_file, rates):
    path = written_file(json.dumps({"someone": SPEED}))
    _, tables = convert("flash", path, bin_s=600.0)
    times, down = rates(tables["bandwidth"], "flash-someone")
    assert times == [600.0 * k for k in range(144)]
    assert set(down) == {8.192}
    first = rates(tables["bandwidth"], "flash-someone", "up")[1]
    assert min(first) > 0
    assert np.mean(first) == pytest.approx(4.096, rel=0.1)
    _, tables = convert("flash", path, bin_s=600.0, seed=0)
    assert rates(tables["bandwidth"], "flash-someone", "up")[1] == first
    _, tables = convert("flash", path, bin_s=600.0, seed=1)
    assert rates(tables["bandwidth"], "flash-someone", "up")[1] != first


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (phones(a="2020-01-31 08:00:00 wifi"), "flash-a.messages[1]: expected YYYY-MM-DD"),
        (phones(a="2020-13-31 08:00:00\twifi"), "flash-a.messages[1]: expected YYYY-MM-DD"),
        (phones(a="2020-01-31 08:00:00"), "a tab and a state"),
        (phones(a="1990-01-31 08:00:00\twifi\n2020-01-31 08:00:00\twifi"), "a log of at most a year"),
        (json.dumps({"a": {"messages": 5}}), "flash-a.messages: expected a text"),
        (json.dumps({"a": {**SPEED, "down_u": -1}}), "flash-a.down_u: expected a number"),
        (json.dumps({"a": {**SPEED, "down_u": 9e9}}), "are these bytes per second?"),
        (json.dumps({"a": {"down_u": 1}}), "expected messages, or down_u"),
        (json.dumps({"../a": SPEED}), "id: expected an identifier"),
        (phones(a=LOG)[:-30], "the end of the file"),
        ("[]", 'expected "{"'),
    ],
)
def test_wrong_content_is_named(refusal, written_file, content, expected):
    path = written_file(content)
    message = refusal("flash", path)
    assert message.startswith(f"{path}:1: ")
    assert expected in message


def test_the_published_speeds(convert, real):
    path = real("flash/speed_distri.json")
    _, tables = convert("flash", path)
    traces = tables["bandwidth"].traces
    assert len(traces) == 19
    given = json.loads(path.read_text())
    down = np.array([given[trace.trace_id.removeprefix("flash-")]["down_u"] for trace in traces]) * 8.192e-3
    up = np.array([given[trace.trace_id.removeprefix("flash-")]["up_u"] for trace in traces]) * 8.192e-3
    # On record with 1000 bytes to the kilobyte; FLASH divides by 1024.
    assert (np.median(down), np.median(up)) == pytest.approx((34.5 * 1.024, 26.3 * 1.024), abs=0.1)
    assert np.median(down / up) == pytest.approx(1.4, abs=0.05)
    # Draws at or below 0 are drawn again, which lifts the mean where the spread is wide.
    drawn = np.array([trace.down.values.mean() / 1e6 for trace in traces])
    assert (drawn > 0.95 * down).all()
    assert np.median(drawn / down) == pytest.approx(1.0, abs=0.06)
