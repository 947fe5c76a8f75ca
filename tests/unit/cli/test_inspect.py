import json
import threading
import time

import pytest
import typer
from typer.testing import CliRunner

from fedsim.cli.doctor import Finding, doctor, examine
from fedsim.cli.inspect import printable, runs, tail, trace_client
from fedsim.cli.report import report
from fedsim.errors import InputError
from tests.records import NASTY, write_record

app = typer.Typer(add_completion=False)
app.command("report")(report)
app.command("trace-client")(trace_client)
app.command("tail")(tail)
app.command("runs")(runs)
app.command("doctor")(doctor)


def call(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def run(tmp_path):
    return write_record(tmp_path / "runs" / "one")


def test_report_names_what_it_wrote(run):
    written = call("report", run, "--tables").output.split()
    assert written[:2] == [str(run / "report.html"), str(run / "timeline.json")]
    assert str(run / "tables" / "assignments.parquet") in written
    assert all((run / path).exists() for path in written)


def test_the_life_of_one_device_in_words(run):
    by_index = call("trace-client", run, "1").output
    by_name = call("trace-client", run, f"phone-1 {NASTY}").output
    assert "is given assignment 1 from version 0" in by_index
    assert "has ended, it dropped out during train (the device left)" in by_index
    assert "is given assignment 3 from version 1" in by_index
    assert "assignment 0" not in by_index
    assert set(by_name.splitlines()) < set(by_index.splitlines())  # departures give a plain name here


def test_a_replanned_client_says_from_what_to_what(run):
    words = call("trace-client", run, "0").output
    assert "re-planned because of its bandwidth: rank 2.0 received, 1.5 trained -> rank 1.0" in words
    assert "has downloaded 30 B in 00:00:10" in words
    assert "its update is part of the next version" in words


def test_a_refused_device_has_a_life_too(run):
    assert "is refused: cannot hold the base model" in call("trace-client", run, "5").output


def test_an_unknown_device_is_told(run):
    with pytest.raises(
        InputError, match=r"client 99: the record never speaks of it; name a device .*, such as \w+"
    ):
        call("trace-client", run, "99")


def test_tail_tells_what_the_server_does_and_ends_with_the_run(run):
    words = call("tail", run).output.splitlines()
    assert words[-1].endswith("the run ends: 1 round is over")
    assert any("version 1 is measured: loss 1.5000" in line for line in words)
    assert not any("assignment" in line for line in words)
    assert any(
        "assignment 2 has ended" in line for line in call("tail", run, "--clients").output.splitlines()
    )


def test_tail_follows_lines_that_come_later_even_in_pieces(run):
    events = run / "events.jsonl"
    whole = events.read_text()
    cut = len(whole) - 30
    events.write_text(whole[:cut])
    assert "the run ends" not in call("tail", run, "--once").output

    def write_the_rest():
        time.sleep(0.3)
        with events.open("a") as file:
            file.write(whole[cut:-5])
            file.flush()
            time.sleep(0.3)
            file.write(whole[-5:])

    writer = threading.Thread(target=write_the_rest)
    writer.start()
    output = call("tail", run).output
    writer.join()
    assert output.count("the run ends") == 1


def test_tail_of_nothing_is_told(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        call("tail", tmp_path)


def test_runs_lists_figures(run, tmp_path):
    write_record(run.parent / "two", stub=True)
    (run.parent / "two" / "summary.json").unlink()
    output = call("runs", run.parent).output.splitlines()
    assert output[0].split()[:3] == ["run", "method", "seed"]
    assert "2.0000 -> 1.5000" in output[1]
    assert "1 round is over" in output[1]
    assert "STUB, nothing trained" in output[2]
    assert output[2].endswith("not ended")
    told = json.loads(call("runs", run.parent, "--json").output)
    assert [entry["last_loss"] for entry in told] == [1.5, None]
    assert told[0]["bytes_moved"] == 220
    assert json.loads(call("runs", run, "--json").output)[0] == told[0]


def test_a_folder_without_runs_and_no_folder(tmp_path):
    assert call("runs", tmp_path).output == f"no runs in {tmp_path}\n"
    assert json.loads(call("runs", tmp_path, "--json").output) == []
    with pytest.raises(InputError, match="no such folder"):
        call("runs", tmp_path / "nowhere")


def test_names_cannot_steer_the_terminal():
    assert printable("a\x1b[31mb\n") == "a\\x1b[31mb\\n"


def test_the_doctor_finds_what_is_needed(tmp_path):
    findings = {finding.what: finding for finding in examine(tmp_path)}
    assert findings["torch"].state == "ok"
    assert findings["cpu capability"].detail
    assert "disk" in findings
    assert call("doctor").exit_code == 0
    assert {entry["what"] for entry in json.loads(call("doctor", "--json").output)} == set(findings)


def test_the_doctor_fails_where_something_is_missing(monkeypatch):
    missing = Finding("torch", "missing", "not installed; pip install torch")
    monkeypatch.setattr("fedsim.cli.doctor.examine", lambda _: [missing])
    result = call("doctor")
    assert result.exit_code == 1
    assert "pip install torch" in result.output
