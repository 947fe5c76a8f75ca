import pytest

TEXT = "15.0 3000.0\n1015.0 3000.0\n1515.0 500.0\n2515.0 500.0\n2515.0 700\n3000 700\n"


def test_chunks_hold_and_pauses_stay_empty(convert, written_file, rates):
    written, tables = convert("oboe", written_file(TEXT, "trace_0.txt"))
    rows = (written.folder / "bandwidth.csv").read_text().splitlines()[1:]
    assert rows == [
        "oboe-trace_0,0,3,",
        "oboe-trace_0,1,,",
        "oboe-trace_0,1.5,0.5,",
        "oboe-trace_0,2.5,0.7,",
        "oboe-trace_0,2.985,,",
    ]
    assert written.counts["pauses between two chunks left empty, since nothing was measured"] == 1
    trace = tables["bandwidth"].traces[0].down
    assert (trace.period_s, trace.values.tolist()) == (pytest.approx(3.735), [3e6, 5e5, 7e5])
    assert rates(tables["bandwidth"], "oboe-trace_0")[1] == [3.0, None, 0.5, 0.7, None]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TEXT + "4000 5\n", "7: line: expected pairs of lines"),
        ("0 5\n10 6\n", "2: rate: expected 5 again"),
        ("10 5\n0 5\n", "2: time: expected a time not before 10"),
        ("0 3e6\n10 3e6\n", "are these bit/s?"),
        ("0 0\n10 0\n", "expected some rate above 0"),
    ],
)
def test_a_wrong_line_is_named(refusal, written_file, text, expected):
    assert expected in refusal("oboe", written_file(text))


def test_the_published_sessions(convert, real):
    _, tables = convert("oboe", real("oboe"))
    assert len(tables["bandwidth"].traces) == 10
    assert all(trace.down.period_s > 60 for trace in tables["bandwidth"].traces)
