import json
from collections import defaultdict
from itertools import pairwise

import pytest

from fedsim.experiment.load import load_run
from fedsim.experiment.report.timeline import timeline
from fedsim.experiment.report.write import write_report
from tests.records import write_record

REQUIRED = {
    "X": {"name", "cat", "pid", "tid", "ts", "dur", "args"},
    "i": {"name", "cat", "pid", "tid", "ts", "s", "args"},
    "C": {"name", "pid", "tid", "ts", "args"},
    "M": {"name", "pid", "tid", "args"},
}


@pytest.fixture
def run(tmp_path):
    return load_run(write_record(tmp_path / "run"))


def check(trace):
    """The trace-event format, as far as it is used here; strips of one track nest or follow each other."""
    json.dumps(trace, allow_nan=False)
    tracks = defaultdict(list)
    for event in trace["traceEvents"]:
        assert REQUIRED[event["ph"]] <= set(event)
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert event.get("ts", 0) >= 0
        if event["ph"] == "C":
            assert all(isinstance(value, int) and value >= 0 for value in event["args"].values())
        if event["ph"] == "i":
            assert event["s"] in "gpt"
        if event["ph"] == "X":
            # Whole numbers: with fractions, an end and the next beginning differ in the last digit.
            assert isinstance(event["ts"], int)
            assert isinstance(event["dur"], int)
            assert event["dur"] > 0
            tracks[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    for spans in tracks.values():
        ordered = sorted(spans)
        assert all(first[1] <= second[0] for first, second in pairwise(ordered))


def test_a_trace_has_the_format_and_a_track_per_client(run):
    trace = timeline(run)
    check(trace)
    names = [event["args"]["name"] for event in trace["traceEvents"] if event["name"] == "thread_name"]
    assert len(names) == 1 + run.assignments["client"].nunique()
    groups = [event["args"]["name"] for event in trace["traceEvents"] if event["name"] == "process_name"]
    assert groups == ["server", "laptop", "phone"]


def test_phases_outcomes_and_replans_are_told(run):
    events = timeline(run)["traceEvents"]
    training = [event for event in events if event["ph"] == "X" and event["name"] == "train"]
    assert {event["dur"] for event in training} == {20e6, 30e6}
    assert {event["name"] for event in events if event.get("cat") == "outcome"} == {
        "dropped",
        "late",
        "cancelled",
    }
    assert [event["args"]["reason"] for event in events if event["name"] == "re-planned"] == ["bandwidth"]


def test_nothing_is_in_flight_at_the_end(run):
    for name in ("assignments in flight", "bytes in flight"):
        counts = [event for event in timeline(run)["traceEvents"] if event["name"] == name]
        assert max(next(iter(event["args"].values())) for event in counts) > 0
        assert next(iter(counts[-1]["args"].values())) == 0


def test_a_large_run_is_thinned_by_whole_clients_and_says_so(run):
    whole, thin = timeline(run), timeline(run, limit=6)
    check(thin)
    assert whole["metadata"]["thinning"].startswith("none")
    assert "one in" in thin["metadata"]["thinning"]
    assert thin["metadata"]["clients_shown"] < thin["metadata"]["clients"] == 3
    counted = [event for event in thin["traceEvents"] if event["ph"] == "C"]
    assert counted == [event for event in whole["traceEvents"] if event["ph"] == "C"]


def test_it_lies_beside_the_report(tmp_path):
    directory = write_record(tmp_path / "run")
    write_report(directory)
    check(json.loads((directory / "timeline.json").read_text()))


def test_stretches_that_follow_each_other_meet_exactly(tmp_path):
    """Instants with many digits, as transfers have them, must not overlap after rounding."""
    directory = write_record(tmp_path / "run")
    path = directory / "events.jsonl"
    odd = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text(
        "".join(json.dumps({**line, "time_s": line["time_s"] * 0.123456789}) + "\n" for line in odd)
    )
    check(timeline(load_run(directory)))
