import numpy as np
import pytest

HEADER = "Timestamp,Longitude,DL_bitrate,UL_bitrate,State\n"


def rows(*samples):
    return HEADER + "".join(
        f"2019.12.14_10.{t // 60:02d}.{t % 60:02d},-8.3,{kbps},9,D\n" for t, kbps in samples
    )


def test_the_largest_of_a_second_counts_and_gaps_split(convert, written_file, rates):
    text = rows(
        (0, 5), (0, 7000), (1, "-"), *((t, 1000) for t in range(2, 14)), *((t, 2) for t in range(30, 45))
    )
    written, tables = convert("ucc5g", written_file(text, "B_1.csv"))
    assert rates(tables["bandwidth"], "ucc5g-B_1") == ([0, *range(2, 14)], [7.0] + [1.0] * 12)
    assert rates(tables["bandwidth"], "ucc5g-B_1.2") == ([*range(15)], [0.002] * 15)
    assert written.counts["samples of the same second merged to the largest"] == 1
    assert written.counts["samples without a rate dropped"] == 1
    assert tables["bandwidth"].traces[0].up is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Timestamp,UL_bitrate\n", "1: header: expected the column DL_bitrate"),
        (rows((0, 5)) + "2019.12.14_10.00.01,5\n", "3: line: expected 5 fields"),
        (rows((0, 5)) + "2019-12-14 10:00:01,1,5,5,D\n", "3: Timestamp: expected YYYY.MM.DD_HH.MM.SS"),
        (rows((9, 5), (3, 5)), "3: Timestamp: expected a time not before"),
        (rows((0, 5e9)), "are these bit/s?"),
        (rows((0, "inf")), "2: DL_bitrate"),
        (HEADER, "expected a trace to import"),
    ],
)
def test_a_wrong_file_is_refused(refusal, written_file, text, expected):
    assert expected in refusal("ucc5g", written_file(text, "a.csv"))


def test_the_published_recordings(convert, real, weighted):
    written, tables = convert("ucc5g", real("ucc_5g"))
    assert sum(written.rows.values()) > 4500
    # One of the static and three of the driving files: 0.6 and 0.9 of 4.8 and 7.9 hours.
    for word, mbps in (("2019.12.16_13.40", 72), ("B_", 45)):
        values, lengths = weighted(tables["bandwidth"], word)
        assert np.average(values, weights=lengths) == pytest.approx(mbps, rel=0.3)
