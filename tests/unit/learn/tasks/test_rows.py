"""Data files of every format, whole and broken."""

import bz2
import gzip
import json
import lzma

import datasets
import pytest

from fedsim.errors import ModelError
from fedsim.learn.tasks.rows import Row, read_lines, read_rows

ROWS = [{"text": 'one, "two"', "label": "007"}, {"text": "NA", "label": ""}]


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def as_csv(delimiter=","):
    return delimiter.join(["text", "label"]) + '\n"one, ""two"""' + delimiter + "007\nNA" + delimiter + "\n"


def as_lines():
    return "".join(json.dumps(row) + "\n" for row in ROWS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", as_csv()),
        ("a.tsv", as_csv("\t")),
        ("a.jsonl", as_lines()),
        ("a.json", as_lines()),
        ("list.json", json.dumps(ROWS, indent=4)),
        ("a.csv.gz", gzip.compress(as_csv().encode(), mtime=0)),
        ("a.jsonl.bz2", bz2.compress(as_lines().encode())),
        ("a.json.xz", lzma.compress(json.dumps(ROWS).encode())),
    ],
)
def test_every_format_gives_the_same_rows(tmp_path, name, content):
    rows = read_rows(write(tmp_path / name, content))
    assert [dict(row.values) for row in rows] == ROWS
    assert [row.number for row in rows] == [1, 2]


def test_parquet_is_read(tmp_path):
    datasets.Dataset.from_list(ROWS).to_parquet(tmp_path / "a.parquet")
    assert [dict(row.values) for row in read_rows(tmp_path / "a.parquet")] == ROWS


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.csv", "text,label\na,b\na,b,c,d\n", "row 2: expected 2 columns as in the header, found 4"),
        ("a.csv", "", "no data"),
        ("a.csv", "text,label\n", "expected rows, found none|expected a .csv file"),
        ("a.jsonl", '{"a": 1}\n{"a": \n', "row 2: expected one JSON object a line"),
        ("a.json", '[{"a": 1}, 7]', "row 2: expected a JSON object"),
        ("a.json", '[{"a": 1}, ', "expected a JSON list of objects"),
        ("a.csv", b"text\n\xff\xfe\n", "expected UTF-8 text|utf-8"),
        ("a.csv.gz", b"no gzip", "expected UTF-8 text"),
        ("a.parquet", b"no parquet", "expected a .parquet file"),
        ("a.xlsx", b"", "expected a file of .csv"),
    ],
)
def test_a_broken_file_is_one_line_with_its_place(tmp_path, name, content, match):
    with pytest.raises(ModelError, match=match) as caught:
        read_rows(write(tmp_path / name, content))
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    for read in (read_rows, read_lines):
        with pytest.raises(ModelError, match="found none"):
            read(tmp_path / "absent.csv")


def test_nothing_stays_in_the_users_cache(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    read_rows(write(tmp_path / "a.csv.gz", gzip.compress(as_csv().encode(), mtime=0)))
    assert not cache.exists()


def test_values_are_read_strictly(tmp_path):
    row = Row(tmp_path / "x", 3, {"n": "2", "yes": True, "list": '["a", "b"]', "none": None, "number": 4})
    assert row.index("n", 3) == 2
    assert row.index("n", 2, first=1) == 1
    assert row.truth("yes") is True
    assert row.texts("list", 2) == ("a", "b")
    assert row.optional_text("none") == row.optional_text("absent") == ""
    for wrong in (
        lambda: row.index("n", 2),
        lambda: row.index("yes", 2),
        lambda: row.truth("n"),
        lambda: row.texts("list", 3),
        lambda: row.texts("number", 1),
        lambda: row.text("none"),
        lambda: row.text("number"),
        lambda: row.optional_text("number"),
        lambda: row.text("absent", "gone"),
    ):
        with pytest.raises(ModelError, match="x: row 3: expected"):
            wrong()
