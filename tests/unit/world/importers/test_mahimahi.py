import numpy as np
import pytest

MBIT = 0.012


def test_packets_are_counted_in_bins_and_pairs_cut_to_the_shorter(convert, written_file, rates):
    down = written_file("0\n5\n999\n1000\n3100\n3100\n4200\n", "road.down")
    up = written_file("1\n2500\n3000\n", "road.up")
    written, tables = convert("mahimahi", down, up)
    assert rates(tables["bandwidth"], "mahimahi-road") == ([0, 1, 2], [0.036, MBIT, 0])
    assert rates(tables["bandwidth"], "mahimahi-road", "up") == ([0, 1, 2], [MBIT, 0, MBIT])
    assert written.counts["bins of 1 s clipped where the other direction ends"] == 1


def test_the_width_of_a_bin_may_be_chosen(convert, written_file, rates):
    _, tables = convert("mahimahi", written_file("0\n5\n250\n500\n1000\n", "road"), bin_s=0.5)
    assert rates(tables["bandwidth"], "mahimahi-road") == ([0, 0.5], [0.072, 0.024])


def test_a_downlink_alone_leaves_the_uplink_open(convert, written_file):
    written, tables = convert("mahimahi", written_file("0\n1500\n", "road.down"))
    assert tables["bandwidth"].traces[0].up is None
    assert written.counts["downlinks without an uplink beside them"] == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0\n0.5\n", "2: milliseconds: expected a whole number"),
        ("0\n-3\n", "2: milliseconds: expected a number from 0"),
        ("5\n3\n", "2: milliseconds: expected a time not before 5"),
        ("0\n9999999999999\n", "are these microseconds?"),
        ("0\n1 2\n", "2: milliseconds"),
        ("0\nnan\n", "2: milliseconds"),
        ("0\n1_000\n", "2: milliseconds"),
        ("0\n", "expected packets in at least one whole bin"),
    ],
)
def test_a_wrong_line_is_named(refusal, written_file, text, expected):
    assert expected in refusal("mahimahi", written_file(text, "road.down"))


def test_an_uplink_alone_is_refused(refusal, written_file):
    assert "expected road.down beside it" in refusal("mahimahi", written_file("0\n2000\n", "road.up"))


def test_the_published_pairs(convert, real, weighted):
    _, tables = convert("mahimahi", real("mahimahi"))
    table = tables["bandwidth"]
    means = {}
    for word in ("TMobile-UMTS", "ATT-LTE-driving-2016", "Verizon-LTE-short"):
        for direction in ("down", "up"):
            values, lengths = weighted(table, word, direction)
            means[word, direction] = np.average(values, weights=lengths)
    assert means["TMobile-UMTS", "down"] == pytest.approx(2.02, abs=0.005)
    assert means["TMobile-UMTS", "up"] == pytest.approx(0.94, abs=0.005)
    for word, ratio in (("TMobile-UMTS", 2.1), ("ATT-LTE-driving-2016", 2.4), ("Verizon-LTE-short", 0.85)):
        assert means[word, "down"] / means[word, "up"] == pytest.approx(ratio, rel=0.03)
    for direction, share in (("down", 0.083), ("up", 0.057)):
        values, lengths = weighted(table, "TMobile-UMTS", direction)
        assert np.average(values < 0.1, weights=lengths) == pytest.approx(share, abs=0.0006)
