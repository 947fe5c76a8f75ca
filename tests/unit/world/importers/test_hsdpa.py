import json

import numpy as np
import pytest


def sabre(*entries):
    return json.dumps(
        [{"duration_ms": ms, "bandwidth_kbps": kbps, "latency_ms": 100} for ms, kbps in entries], indent=1
    )


def log(*lines):
    return "".join(f"1289406399 {ms} 59.85 10.78 {size} {elapsed}\n" for ms, size, elapsed in lines)


def test_a_long_silence_is_a_gap_and_no_outage(convert, written_file, rates):
    entries = [(1000, 2000)] * 11 + [(994_887, 0)] + [(500, 100), (1000, 0)] + [(2000, 3000)] * 10
    written, tables = convert("hsdpa", written_file(sabre(*entries), "report.json"))
    table = tables["bandwidth"]
    assert [trace.trace_id for trace in table.traces] == ["hsdpa-report", "hsdpa-report.2"]
    assert rates(table, "hsdpa-report") == ([*range(11)], [2.0] * 11)
    times, values = rates(table, "hsdpa-report.2")
    assert times[:4] == [0, 0.5, 1.5, 3.5]
    assert values == [0.1, 0.0] + [3.0] * 10
    assert written.counts["gaps in the measurement, which are no outages: recordings split there"] == 1


def test_a_short_silence_is_an_outage(convert, written_file, rates):
    _, tables = convert("hsdpa", written_file(sabre((1000, 2000), (5000, 0), (1000, 1)), "a.json"))
    assert rates(tables["bandwidth"], "hsdpa-a") == ([0, 1, 6], [2.0, 0.0, 0.001])


def test_an_original_log(convert, written_file, rates):
    lines = [(1000 + 1000 * k, 125_000, 1000) for k in range(12)]
    later = [(30_000 + 1000 * k, 250_000, 1000) for k in range(12)]
    _, tables = convert("hsdpa", written_file(log(*lines, *later), "tram.log"))
    assert rates(tables["bandwidth"], "hsdpa-tram") == ([*range(12)], [1.0] * 12)
    assert rates(tables["bandwidth"], "hsdpa-tram.2") == ([*range(12)], [2.0] * 12)


def test_lines_of_seconds_and_rate(convert, written_file, rates):
    _, tables = convert("hsdpa", written_file("0.0 1.302336\n1.0 1.7\n3.0 0.5\n", "metro.txt"))
    assert rates(tables["bandwidth"], "hsdpa-metro") == ([0, 1, 3], [1.302336, 1.7, 0.5])


def test_pieces_that_are_of_no_use_are_dropped_and_counted(convert, written_file):
    entries = [(1000, 2000)] * 3 + [(9000, 0)] + [(1000, 0)] * 20 + [(9000, 0)] + [(1000, 5)] * 12
    written, tables = convert("hsdpa", written_file(sabre(*entries), "a.json"))
    assert [trace.trace_id for trace in tables["bandwidth"].traces] == ["hsdpa-a"]
    assert written.counts["pieces shorter than 10 s dropped"] == 1
    assert written.counts["recordings or pieces without any rate above 0 dropped"] == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (sabre((1000, 3_448_000)), "bandwidth_kbps: expected a number from 0 to 100000 (kbit/s)"),
        (sabre((-1, 5)), "duration_ms: expected a number from 0"),
        (sabre((1000, "5")), "bandwidth_kbps"),
        (sabre((1000, 5))[:-10], "the end of the file"),
        ('[{"duration_ms": 5}]', "entry: expected duration_ms and bandwidth_kbps"),
        ("[1, 2]", "entry: expected duration_ms and bandwidth_kbps"),
        ('[{"duration_ms": NaN, "bandwidth_kbps": 1}]', "NaN"),
        ('[{"duration_ms": 1, "bandwidth_kbps": 1e999}]', "bandwidth_kbps"),
        (sabre((1000, 0), (1000, 0)), "expected a trace to import"),
        ("[]", "expected a trace to import"),
        (log((1000, 125_000, 1000)) + "1289406399 2000 59.8\n", "2: line: expected epoch ms lat lon"),
        (log((1000, 125_000, 1)), "bytes: expected a number from 0 to 100 (Mbit/s)"),
        ("1289406399 1000 10.78 359.85 5 1000\n", "check the order of the columns"),
    ],
)
def test_a_wrong_file_is_refused(refusal, written_file, text, expected):
    assert expected in refusal("hsdpa", written_file(text, "a.json"))


def test_the_published_recordings(convert, real, weighted):
    folder = real("hsdpa_norway_sabre")
    written, tables = convert("hsdpa", folder)
    values, lengths = weighted(tables["bandwidth"], "report")
    # The same rule, applied to the files in another way.
    measured = [
        (entry["duration_ms"] / 1000, entry["bandwidth_kbps"] / 1000)
        for path in sorted(folder.glob("report*.json"))
        for entry in json.loads(path.read_text())
        if entry["duration_ms"] <= 5000 or entry["bandwidth_kbps"] > 0
    ]
    seconds, mbps = np.array(measured).T
    assert lengths.sum() == pytest.approx(seconds.sum(), rel=0.01)
    assert np.average(values, weights=lengths) == pytest.approx(np.average(mbps, weights=seconds), rel=0.01)
    # These are 2 of the 26 hours whose mean is 1.18 Mbit/s.
    assert np.average(values, weights=lengths) == pytest.approx(1.18, rel=0.3)
    assert written.counts["files in the folder that are not hsdpa skipped"] == 1
