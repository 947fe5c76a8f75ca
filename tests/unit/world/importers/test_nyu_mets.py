import numpy as np
import pytest


def test_units_are_read_line_by_line(convert, written_file, rates):
    text = "1.87,Mbits/sec\n500,Kbits/sec\n0.00,bits/sec\n1,Gbits/sec\n"
    _, tables = convert("nyu_mets", written_file(text, "bus.csv"))
    assert rates(tables["bandwidth"], "nyu_mets-bus") == ([0, 1, 2, 3], [1.87, 0.5, 0.0, 1000.0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,Mbits/sec\n2,MBytes/sec\n", "2: unit: expected value,unit with one of bits/sec"),
        ("1,Mbits/sec\n2\n", "2: unit"),
        ("x,Mbits/sec\n", "1: value: expected a number"),
        ("20000,Mbits/sec\n", "1: value"),
        ("0,bits/sec\n", "expected a trace to import"),
    ],
)
def test_a_wrong_line_is_named(refusal, written_file, text, expected):
    assert expected in refusal("nyu_mets", written_file(text))


def test_the_published_recordings(convert, real, weighted):
    _, tables = convert("nyu_mets", real("nyu_mets"))
    values, lengths = weighted(tables["bandwidth"])
    # 4.0 of the 5.3 hours whose mean is 6.2 Mbit/s, outages 2.6 %.
    assert lengths.sum() / 3600 == pytest.approx(4.0, abs=0.05)
    assert np.average(values, weights=lengths) == pytest.approx(6.2, rel=0.1)
    assert np.average(values < 0.1, weights=lengths) == pytest.approx(0.026, abs=0.005)
