import hashlib
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedsim.cli.traces import traces_app
from fedsim.errors import TraceError

SHIPPED = Path(__file__).parents[3] / "traces" / "skewed_edge"
FILES = ("devices.csv", "availability.csv", "bandwidth.csv", "state.csv")


def call(*words):
    return CliRunner().invoke(traces_app, [str(word) for word in words], catch_exceptions=False)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_synth_writes_a_fleet_that_check_accepts(tmp_path):
    out = tmp_path / "fleet"
    assert call("synth", "--out", out, "--devices", 9, "--days", 1, "--seed", 3).exit_code == 0
    result = call("check", *(out / name for name in FILES))
    assert result.exit_code == 0
    assert "9 devices" in result.output
    assert "note" not in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["fleet"]


def test_a_folder_with_files_is_refused_without_force(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(TraceError, match="expected an empty folder"):
        call("synth", "--out", tmp_path, "--devices", 2, "--days", 1)
    assert call("synth", "--out", tmp_path, "--devices", 2, "--days", 1, "--force").exit_code == 0
    assert (tmp_path / "mine.txt").read_text() == "keep"
    assert (tmp_path / "devices.csv").exists()


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "out").mkdir()
    assert call("synth", "--out", tmp_path / "out", "--devices", 2, "--days", 1).exit_code == 0


def test_nothing_is_left_after_a_mistake(tmp_path):
    with pytest.raises(TraceError, match="--recipe"):
        call("synth", "--out", tmp_path / "out", "--recipe", "moon")
    (tmp_path / "file").write_text("")
    with pytest.raises(TraceError, match="found a file"):
        call("synth", "--out", tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_check_prints_notes_and_passes_errors_on(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("device_id,start_s,end_s\na,0,10\na,5,20\na,x,30\n")
    with pytest.raises(TraceError, match=":4: start_s"):
        call("check", path)
    assert "joined 1 intervals" in call("check", "--lenient", path).output
    with pytest.raises(TraceError, match="choose one"):
        call("check", "--lenient", "--strict", path)


def test_the_shipped_traces_are_what_the_command_makes(tmp_path):
    readme = (SHIPPED / "README.md").read_text()
    words = re.search(r"fedsim traces synth (.*) --out", readme)[1].split()
    call("synth", *words, "--out", tmp_path / "again")
    for name in (*FILES, "availability.csv.toml", "state.csv.toml", "README.md"):
        assert sha256(tmp_path / "again" / name) == sha256(SHIPPED / name), name
    for name in FILES:
        assert sha256(SHIPPED / name) in readme
