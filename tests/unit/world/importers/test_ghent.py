import json

import numpy as np
import pytest


def test_an_original_log(convert, written_file, rates):
    lines = "".join(
        f"{1453121790686 + 1000 * k} {262 + 1000 * k} 51.03 3.71 2500000 1000\n" for k in range(3)
    )
    _, tables = convert("ghent", written_file(lines, "report_foot_0001.log"))
    assert rates(tables["bandwidth"], "ghent-report_foot_0001") == ([0, 1, 2], [20.0] * 3)


def test_sabre(convert, written_file, rates):
    text = json.dumps([{"duration_ms": 148, "bandwidth_kbps": 3133, "latency_ms": 20}] * 2)
    _, tables = convert("ghent", written_file(text, "bus.json"))
    assert rates(tables["bandwidth"], "ghent-bus") == ([0, 0.148], [3.133, 3.133])
    assert tables["bandwidth"].traces[0].latency_s is None


def test_rates_in_bits_are_refused(refusal, written_file):
    text = json.dumps([{"duration_ms": 148, "bandwidth_kbps": 31_330_000, "latency_ms": 20}])
    assert "are these bit/s?" in refusal("ghent", written_file(text))


def test_the_published_recordings(convert, real, weighted):
    _, tables = convert("ghent", real("ghent_lte_sabre"))
    table = tables["bandwidth"]
    assert len(table.traces) == 9
    values, lengths = weighted(table)
    # These are 1.4 of the 5 hours whose mean is 30.2 Mbit/s, sd 16.1.
    mean = np.average(values, weights=lengths)
    assert mean == pytest.approx(30.2, rel=0.1)
    assert np.sqrt(np.average((values - mean) ** 2, weights=lengths)) == pytest.approx(16.1, rel=0.1)
    for mode, mbps in (("bus", 31.9), ("foot", 29.3), ("bicycle", 28.2), ("train", 22.5), ("car", 33.9)):
        values, lengths = weighted(table, mode)
        assert np.average(values, weights=lengths) == pytest.approx(mbps, rel=0.21)
