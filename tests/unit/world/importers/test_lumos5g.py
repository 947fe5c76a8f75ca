import numpy as np
import pytest


def test_seconds_and_rates(convert, written_file, rates):
    text = "".join(f"{t}.0\t{t}.0\n" for t in [*range(1, 13), *range(30, 45)])
    _, tables = convert("lumos5g", written_file(text, "5g_walk"))
    assert rates(tables["bandwidth"], "lumos5g-5g_walk") == ([*range(12)], [float(t) for t in range(1, 13)])
    assert rates(tables["bandwidth"], "lumos5g-5g_walk.2")[0] == [*range(15)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.0 5\n2.0\n", "2: line: expected two numbers"),
        ("1.0 5\n0.5 6\n", "2: time: expected a time not before 1"),
        ("1.0 308000\n", "are these kbit/s or bit/s?"),
        ("1.0 -3\n", "1: rate: expected a number from 0"),
        ("0 5\n1000 5\n2000 5\n", "are these milliseconds?"),
    ],
)
def test_a_wrong_line_is_named(refusal, written_file, text, expected):
    assert expected in refusal("lumos5g", written_file(text))


def test_the_published_recordings(convert, real, weighted):
    _, tables = convert("lumos5g", real("lumos5g"))
    assert len(tables["bandwidth"].traces) == 20
    # The first 10 of 175 and 121 files, whose means are 40.4 and 523 Mbit/s.
    for word, mbps in (("4g_", 40.4), ("5g_", 523)):
        values, lengths = weighted(tables["bandwidth"], word)
        assert np.average(values, weights=lengths) == pytest.approx(mbps, rel=0.25)
