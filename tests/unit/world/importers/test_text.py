import gzip

import pytest

from fedsim.errors import TraceError
from fedsim.world.importers import text
from fedsim.world.importers.text import read_lines


def lines(path):
    return [(place.line, line) for place, line in read_lines(path)]


def test_blank_lines_marks_and_line_ends_do_not_matter(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf1 2\r\n\n  3 4  \n5 6")
    assert lines(path) == [(1, "1 2"), (3, "3 4"), (4, "5 6")]


@pytest.mark.parametrize(
    ("data", "line", "expected"),
    [
        (b"", 1, "an empty file"),
        (b"\n \n", 1, "an empty file"),
        (b"1 2\n\0\n", 2, "a NUL byte"),
        (b"1 2\n\xff\n", 2, "bytes that are not UTF-8"),
        (gzip.compress(b"1 2\n", mtime=0), 1, "a gzip archive"),
        (b"PK\x03\x04\x14\x00", 1, "a zip archive"),
    ],
)
def test_what_is_no_text_is_named_with_its_line(tmp_path, data, line, expected):
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    with pytest.raises(TraceError) as caught:
        lines(path)
    assert str(caught.value).startswith(f"{path}:{line}: line: ")
    assert expected in str(caught.value)


def test_a_line_without_end_is_not_swallowed(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "_MAX_LINE_BYTES", 100)
    path = tmp_path / "a.txt"
    path.write_bytes(b"1\n" * 200 + b"x" * 101)
    with pytest.raises(TraceError, match=":201: line: expected lines of text"):
        lines(path)


def test_what_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(TraceError, match="expected a trace file, found none"):
        lines(tmp_path / "nothing")
    with pytest.raises(TraceError, match="expected a readable trace file"):
        lines(tmp_path)
