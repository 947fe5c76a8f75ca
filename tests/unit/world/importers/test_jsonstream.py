import json

import pytest

from fedsim.errors import TraceError
from fedsim.world.importers import jsonstream
from fedsim.world.importers.jsonstream import read_entries


def entries(path, opening="{"):
    return [(place.line, key, value) for place, key, value in read_entries(path, opening)]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1 << 20])
def test_windows_of_any_size_give_the_same(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(jsonstream, "_CHUNK", chunk)
    content = {"a": {"x": [1, 2.5, -3e5], "é": "tab\t ü \U0001f600"}, "b": 1234567890, "c": [], "d": None}
    path = tmp_path / "a.json"
    for text in (
        json.dumps(content),
        json.dumps(content, indent=2, ensure_ascii=False),
        "\ufeff" + json.dumps(content),
    ):
        path.write_text(text, encoding="utf-8")
        assert {key: value for _, key, value in read_entries(path, "{")} == content
    path.write_text(json.dumps([1, 22, [333]], indent=1))
    assert entries(path, "[") == [(2, None, 1), (3, None, 22), (4, None, [333])]


@pytest.mark.parametrize("text", ["{}", " { } \n"])
def test_nothing_is_no_entry(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    assert entries(path) == []


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("", 1, 'expected "{", found "the end of the file"'),
        ('{"a": 1', 1, "the end of the file"),
        ('{"a": 1,\n"b"', 2, "the end of the file"),
        ('{"a": 1\n "b": 2}', 2, 'expected ",", found'),
        ('{"a": 1}\n x', 2, "the end of the file"),
        ('{"a": NaN}', 1, "NaN"),
        ('{"a": -Infinity}', 1, "Infinity"),
        ('{"a": {"b": 1, "b": 2}}', 1, "a key that occurs twice"),
        ('{"a": tru}', 1, "expected JSON"),
        ("{1: 2}", 1, "a key in quotes"),
        ('{"a": ' + "[" * 100_000, 1, "expected JSON"),
        ('{"a": ' + "9" * 5000 + "}", 1, "expected JSON"),
    ],
)
def test_what_is_no_json_is_named_with_its_line(tmp_path, text, line, expected):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(TraceError) as caught:
        entries(path)
    assert str(caught.value).startswith(f"{path}:{line}: JSON: ")
    assert expected in str(caught.value)


@pytest.mark.parametrize("data", [b'{"a": "\xff"}', b'{"a": "\xc3'])
def test_what_is_no_text_is_refused(tmp_path, data):
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(TraceError, match="UTF-8"):
        entries(path)


def test_a_huge_entry_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonstream, "_CHUNK", 10)
    monkeypatch.setattr(jsonstream, "_MAX_ENTRY", 100)
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"a": "x" * 1000}))
    with pytest.raises(TraceError, match="entries of at most 64 MiB"):
        entries(path)
