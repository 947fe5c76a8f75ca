"""The grid of a comparison: its words, its cells, what is kept and what is run again."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fedsim.errors import InputError, ScenarioError
from fedsim.experiment import grid
from fedsim.experiment.grid import locked, parse_methods, parse_seeds, parse_vary, run_cells
from tests.comparisons import cells_of, fake_runs, write_world


@pytest.fixture
def path(tmp_path):
    return write_world(tmp_path)


@pytest.fixture
def fake(tmp_path, monkeypatch):
    return fake_runs(tmp_path, monkeypatch)


def test_methods_carry_their_options():
    first, second = parse_methods("fedhera, fedhera:coupled=true:beta=0.5")
    assert (first.name, first.options) == ("fedhera", ())
    assert second.name == "fedhera"
    assert second.options == (("coupled", "true"), ("beta", "0.5"))


def test_seeds_are_numbers_and_ranges():
    assert parse_seeds("0-2,7, 9-9") == (0, 1, 2, 7, 9)


def test_varied_keys_are_combined():
    assert parse_vary(["a=1,2", "b=x"]) == ((("a", "1"), ("b", "x")), (("a", "2"), ("b", "x")))
    assert parse_vary([]) == ((),)


@pytest.mark.parametrize("text", ["", "a,", "a,a", "a:b", "a:=1", "a:b=", ":b=1", "a:b=1,a:b=1"])
def test_bad_methods_are_refused(text):
    with pytest.raises(ScenarioError, match="--methods"):
        parse_methods(text)


def test_an_unknown_method_is_named_with_its_neighbour():
    with pytest.raises(
        ScenarioError, match=r'--methods flexlra: expected one of .*; did you mean "flexlora"'
    ):
        parse_methods("fedhera,flexlra")


@pytest.mark.parametrize(
    "text", ["", "a", "1-", "-1", "3-1", "1,1", "0-3,2", "1.5", "²", "0-99999", "1" * 5000]
)
def test_bad_seeds_are_refused(text):
    with pytest.raises(ScenarioError, match="--seeds"):
        parse_seeds(text)


@pytest.mark.parametrize(
    "words", [["a"], ["=1"], ["a="], ["a=1,"], ["a=1,1"], ["a=1", "a=2"], ["seed=1"], ["executor.kind=stub"]]
)
def test_bad_variations_are_refused(words):
    with pytest.raises(ScenarioError, match="--vary"):
        parse_vary(words)


def test_a_cell_says_what_differs_and_has_a_folder_of_its_own(path):
    cells = cells_of(path, "fedhera,fedhera:coupled=true", (0, 1), ["server.cohort=4,8"])
    assert len({cell.directory for cell in cells}) == len({c.scenario.scenario_hash for c in cells}) == 8
    last = cells[-1].scenario
    assert (last.seed, last.server.cohort, last.method.options) == (1, 8, {"rank_cap": 32, "coupled": True})
    assert cells[-1].label == "fedhera:coupled=true, seed 1, server.cohort=8"
    assert cells_of(path)[0].directory != cells_of(path, shared={"executor.kind": "stub"})[0].directory


def test_options_of_the_file_stay_with_its_own_method(path):
    own, other = cells_of(path, "fedhera,flexlora:rank_cap=8")
    assert own.scenario.method.options == {"rank_cap": 32}
    assert other.scenario.method.options == {"rank_cap": 8}
    assert cells_of(path, "flexlora")[0].scenario.method.options == {}


def test_a_failure_is_told_and_costs_no_other_cell_and_finished_cells_are_kept(path, fake):
    cells = cells_of(path, seeds=(0, 1, 2))
    log = fake(cells, ["work", "fail", "work"])
    heard = []
    with locked(path.parent / "out"):
        ends = run_cells(path, cells, 2, heard.append)
    assert [end.status for end in ends] == ["finished", "failed", "finished"]
    assert ends[1].reason == "error: it broke"
    assert sorted(end.cell.seed for end in heard) == [0, 1, 2]

    log = fake(cells, ["fail", "work", "fail"])
    with locked(path.parent / "out"):
        ends = run_cells(path, cells, 1, heard.append)
    assert [end.status for end in ends] == ["kept", "finished", "kept"]
    assert log.read_text().split() == [str(cells[1].directory)]
    assert not list((path.parent / "out/cells").glob("*.log"))


def test_what_is_left_of_a_killed_run_is_run_again(path, fake):
    cells = cells_of(path)
    cells[0].directory.mkdir(parents=True)
    (cells[0].directory / "events.jsonl").write_text("torn")
    (cells[0].directory / "manifest.json").write_text("{")
    (cells[0].directory / "summary.json").write_text("{}")
    fake(cells, ["work"])
    assert run_cells(path, cells, 1, lambda end: None)[0].status == "finished"
    assert not (cells[0].directory / "events.jsonl").exists()


def begun(cell):
    """What a killed run of a cell leaves."""
    cell.directory.mkdir(parents=True)
    (cell.directory / "events.jsonl").write_text("half")
    manifest = {"scenario_sha256": cell.scenario.scenario_hash}
    (cell.directory / "manifest.json").write_text(json.dumps(manifest))


def test_a_cell_that_was_killed_goes_on_and_keeps_what_it_has(path, fake):
    cells = cells_of(path)
    begun(cells[0])
    log = fake(cells, ["work"])
    (end,) = run_cells(path, cells, 1, lambda end: None)
    assert (end.status, end.reason) == ("finished", "resumed")
    assert log.read_text().split() == [f"resume:{cells[0].directory}"]
    assert (cells[0].directory / "events.jsonl").read_text() == "half"


def test_a_cell_that_cannot_go_on_is_run_anew_and_says_why(path, fake):
    cells = cells_of(path)
    begun(cells[0])
    log = fake(cells, ["refuse"])
    (end,) = run_cells(path, cells, 1, lambda end: None)
    assert end.status == "finished"
    assert end.reason == "run anew, since it could not go on (error: it is damaged)"
    assert log.read_text().split() == [f"resume:{cells[0].directory}", str(cells[0].directory)]
    assert not (cells[0].directory / "events.jsonl").exists()


def test_a_cell_of_another_scenario_is_not_taken_for_this_one(path, fake):
    cells = cells_of(path)
    fake(cells, ["work"])
    with locked(path.parent / "out"):
        run_cells(path, cells, 1, lambda end: None)
    manifest = cells[0].directory / "manifest.json"
    assert grid.is_finished(cells[0])
    manifest.write_text('{"scenario_sha256": "other"}')
    assert not grid.is_finished(cells[0])


@pytest.fixture
def _heeding_interrupts():
    """A shell that starts the tests in the background has them ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_heeding_interrupts")
def test_an_interrupt_ends_what_runs_and_leaves_what_is_finished(path, fake):
    cells = cells_of(path, seeds=(0, 1))
    log = fake(cells, ["work", "hang"])
    stop = threading.Event()

    def interrupt():
        while not Path(f"{log}.hangs").exists() and not stop.wait(0.02):
            pass
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    with locked(path.parent / "out"):
        thread.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                run_cells(path, cells, 1, lambda end: None)
        finally:
            stop.set()
            thread.join()
    assert grid.is_finished(cells[0])
    assert not cells[1].directory.exists()


def test_two_comparisons_do_not_share_a_folder_and_a_foreign_folder_is_left_alone(tmp_path):
    code = f"""
import pathlib
from fedsim.experiment.grid import locked
with locked(pathlib.Path({str(tmp_path / "out")!r})):
    pass
"""
    with locked(tmp_path / "out"):
        second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "another comparison is at work there" in second.stderr
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="found something else"), locked(tmp_path / "mine"):
        pass
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
