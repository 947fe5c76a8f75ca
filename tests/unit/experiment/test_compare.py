"""Comparisons: what is run, what is kept, what a difference is, and how sure it is."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from scipy.stats import ttest_rel

from fedsim.errors import InputError, ScenarioError
from fedsim.experiment import grid
from fedsim.experiment.compare import (
    Comparison,
    Plan,
    Request,
    as_json,
    bounds,
    carry_out,
    interval,
    notes,
    plan,
    tabulate,
)
from fedsim.experiment.grid import locked, make_cells, parse_methods, parse_seeds, parse_vary, run_cells
from fedsim.experiment.outcome import Curve, RunOutcome, equal_end, overlap, read_outcome

SCENARIO = """\
fleet: {devices: d.csv, bandwidth: b.csv, availability_policy: always}
method: {name: fedhera, options: {rank_cap: 32}}
stop: {rounds: 3}
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "x.yaml").write_text(SCENARIO)
    (tmp_path / "d.csv").write_text(
        "device_id,compute_gflops,device_class,mem_available_mib,bandwidth_id\nphone,50,phone,4000,wifi\n"
    )
    (tmp_path / "b.csv").write_text("trace_id,time_s,down_mbps,up_mbps\nwifi,0,100,100\nwifi,10,100,100\n")
    return tmp_path / "x.yaml"


def cells_of(path, methods="fedhera", seeds=(0,), vary=(), shared=None):
    out = path.parent / "out"
    return make_cells(path, out, parse_methods(methods), seeds, parse_vary(vary), shared or {})


# --- words of the command line ---------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": "fedhra"}, "did you mean 'fedhera'"),
        ({"methods": "fedhera:foo=1"}, "unknown option 'foo'"),
        ({"methods": "fedhera:beta=7"}, "beta: expected a number from 0 to 1"),
        ({"reference": "flexlora"}, "--reference flexlora: expected one of fedhera"),
        ({"vary": ("server.cohort=4,0",)}, "--set server.cohort=0: server.cohort: expected at least 1"),
        ({"vary": ("fleet.devices=nope.csv",)}, "no such file"),
        ({"workers": 0}, "--workers 0"),
        ({"target_loss": 0.0}, "--target-loss 0"),
        ({"target_loss": float("nan")}, "--target-loss nan"),
        ({"overrides": {"seed": "4"}}, "--set seed: use --seeds"),
        ({"overrides": {"server.cohrt": "4"}}, "unknown key"),
    ],
)
def test_a_wrong_request_is_told_before_anything_is_made(path, change, message):
    request = Request(
        **{"scenario": path, "methods": "fedhera", "seeds": "0", "out": path.parent / "out"} | change
    )
    with pytest.raises(InputError, match=message) as caught:
        plan(request)
    assert "\n" not in str(caught.value)
    assert not (path.parent / "out").exists()


# --- cells -----------------------------------------------------------------------------------------------


def test_a_cell_says_what_differs_and_has_a_folder_of_its_own(path):
    cells = cells_of(path, "fedhera,fedhera:coupled=true", (0, 1), ["server.cohort=4,8"])
    assert len({cell.directory for cell in cells}) == len({c.scenario.scenario_hash for c in cells}) == 8
    last = cells[-1].scenario
    assert (last.seed, last.server.cohort, last.method.options) == (1, 8, {"rank_cap": 32, "coupled": True})
    assert cells[-1].label == "fedhera:coupled=true, seed 1, server.cohort=8"
    assert cells_of(path)[0].directory != cells_of(path, shared={"executor.kind": "stub"})[0].directory


def test_options_of_the_file_stay_with_its_own_method(path):
    own, other = cells_of(path, "fedhera,mine:rank_cap=8")
    assert own.scenario.method.options == {"rank_cap": 32}
    assert other.scenario.method.options == {"rank_cap": 8}
    assert cells_of(path, "mine")[0].scenario.method.options == {}


FAKE = """#!{python}
import json, os, sys, time
words = sys.argv[1:]
out = words[words.index("--out") + 1]
told = json.load(open({told!r}))[out]
with open({log!r}, "a") as log:
    log.write(out + chr(10))
os.makedirs(out)
if told["act"] == "fail":
    sys.exit("first line" + chr(10) + "error: it broke")
if told["act"] == "hang":
    open({log!r} + ".hangs", "w").close()
    time.sleep(60)
json.dump({{"scenario_sha256": told["hash"]}}, open(out + "/manifest.json", "w"))
json.dump({{}}, open(out + "/summary.json", "w"))
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Runs that take no time; the returned function says how each of them ends."""
    script, told, log = tmp_path / "fake", tmp_path / "told.json", tmp_path / "log"
    script.write_text(FAKE.format(python=sys.executable, told=str(told), log=str(log)))
    script.chmod(0o755)
    monkeypatch.setattr(grid.sys, "executable", str(script))

    def prepare(cells, acts):
        told.write_text(
            json.dumps(
                {
                    str(cell.directory): {"act": act, "hash": cell.scenario.scenario_hash}
                    for cell, act in zip(cells, acts, strict=True)
                }
            )
        )
        log.write_text("")
        return log

    return prepare


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


def test_a_cell_of_another_scenario_is_not_taken_for_this_one(path, fake):
    cells = cells_of(path)
    fake(cells, ["work"])
    with locked(path.parent / "out"):
        run_cells(path, cells, 1, lambda end: None)
    manifest = cells[0].directory / "manifest.json"
    assert grid.is_finished(cells[0])
    manifest.write_text('{"scenario_sha256": "other"}')
    assert not grid.is_finished(cells[0])


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


# --- figures ---------------------------------------------------------------------------------------------


def curve(times, losses, scale=10.0):
    return Curve(
        tuple(times),
        tuple(scale * t for t in times),
        {"loss": tuple(losses), "token_accuracy": (), "rouge_l": ()},
    )


def outcome(times=(0.0, 2.0, 4.0), losses=(3.0, 2.0, 1.0), asked=(), **figures):
    manifest = {"caveats": [], "traces": {"d.csv": "1"}, "versions": {}, "cpu_capability": "X"}
    empty = (None,) * len(times)
    found = Curve(
        tuple(times),
        tuple(10 * t for t in times),
        {"loss": tuple(losses), "token_accuracy": empty, "rouge_l": empty},
    )
    return RunOutcome(manifest, found, frozenset(asked), figures)


def test_a_curve_is_read_between_its_points():
    found = curve([0.0, 2.0, 4.0], [3.0, 2.0, 1.5])
    assert found.at("loss", "time", 1.0) == 2.5
    assert found.at("loss", "bytes", 30.0) == 1.75
    assert found.at("loss", "time", 9.0) == 1.5
    assert found.final("loss") == 1.5


def test_a_target_is_reached_where_the_line_crosses_it_first():
    found = curve([0.0, 2.0, 4.0, 6.0], [3.0, 2.0, 2.5, 1.0])
    assert found.reached("loss", 2.5, "time") == 1.0
    assert found.reached("loss", 1.75, "bytes") == 50.0
    assert found.reached("loss", 3.0, "time") == 0.0
    assert found.reached("loss", 0.9, "time") is None


def test_equal_time_is_the_earliest_end():
    assert equal_end([curve([0.0, 4.0], [1, 1]), curve([0.0, 3.0], [1, 1])], "time") == 3.0
    assert equal_end([], "time") is None


def test_overlap_is_over_versions_that_both_made():
    left = outcome(asked=[(0, 1), (0, 2), (1, 5), (2, 9)])
    right = outcome(asked=[(0, 2), (0, 3), (1, 5)])
    assert overlap(left, right) == pytest.approx((1 / 3 + 1) / 2)
    assert overlap(left, left) == 1.0
    assert overlap(left, outcome(asked=[(7, 1)])) is None


def test_the_interval_is_that_of_a_paired_t_test():
    left, right = [1.0, 1.4, 0.9, 1.3], [0.8, 1.3, 0.9, 1.0]
    mean, half_width = interval([a - b for a, b in zip(left, right, strict=True)])
    expected = ttest_rel(left, right).confidence_interval(0.95)
    assert (mean - half_width, mean + half_width) == pytest.approx((expected.low, expected.high))
    assert interval([0.5]) == (0.5, None)
    assert interval([]) == (None, None)
    assert interval([1.0, 3.0]) == (2.0, pytest.approx(12.7062, rel=1e-4))


def request_of(path, **change):
    return Request(
        scenario=path, methods="fedhera,fedhera:coupled=true", seeds="0-1", out=path.parent, **change
    )


def test_rows_pair_runs_by_seed_and_compare_them_at_equal_time(path):
    request = request_of(path, target_loss=2.0)
    cells = cells_of(path, request.methods, (0, 1))
    quick = {"times": (0.0, 1.0, 2.0), "losses": (3.0, 2.0, 1.0)}
    outcomes = {
        cells[0].directory: outcome(bytes_up=10.0),
        cells[1].directory: outcome(bytes_up=20.0),
        cells[2].directory: outcome(**quick, bytes_up=13.0),
        cells[3].directory: outcome(**quick, bytes_up=25.0),
    }
    rows = {(row.method, row.figure): row for row in tabulate(Plan(request, "fedhera", cells), outcomes)}
    coupled = rows["fedhera:coupled=true", "bytes_up"]
    assert (coupled.mean, coupled.difference, coupled.pairs) == (19.0, 4.0, 2)
    assert bounds(coupled) == pytest.approx((4.0 - 12.7062, 4.0 + 12.7062), rel=1e-4)
    assert coupled.values == {0: 13.0, 1: 25.0}
    assert rows["fedhera", "loss_at_time"].mean == 2.0
    assert rows["fedhera:coupled=true", "loss_at_time"].difference == -1.0
    assert rows["fedhera", "time_to_target"].mean == 2.0
    assert rows["fedhera:coupled=true", "bytes_to_target"].mean == 10.0
    assert rows["fedhera", "bytes_up"].difference == 0.0


def test_a_failed_cell_leaves_its_pair_out_and_its_partner_in(path):
    request = request_of(path)
    cells = cells_of(path, request.methods, (0, 1))
    outcomes = {
        cell.directory: outcome(rounds=float(index)) for index, cell in enumerate(cells) if index != 1
    }
    rows = {(row.method, row.figure): row for row in tabulate(Plan(request, "fedhera", cells), outcomes)}
    other = rows["fedhera:coupled=true", "rounds"]
    assert (other.n, other.mean, other.pairs, other.difference, other.half_width) == (2, 2.5, 1, 2.0, None)


def test_notes_tell_of_failures_changed_traces_and_missing_intervals(path):
    cells = cells_of(path, "fedhera,fedhera:coupled=true")
    ends = [grid.CellEnd(cells[0], "finished"), grid.CellEnd(cells[1], "failed", "it broke")]
    changed = outcome()
    changed.manifest["traces"]["d.csv"] = "2"
    checked = Plan(request_of(path), "fedhera", cells)
    told = "\n".join(notes(checked, ends, {cells[0].directory: outcome(), cells[1].directory: changed}))
    for part in ("coupled=true, seed 0: failed: it broke", "trace files changed", "One seed", "last loss of"):
        assert part in told
    kept = {cell.directory: outcome() for cell in cells}
    assert "trace files changed" not in "\n".join(notes(checked, [], kept))


def test_the_json_of_a_comparison_is_plain_and_names_every_cell(path):
    cells = cells_of(path, "fedhera")
    checked = Plan(request_of(path), "fedhera", cells)
    rows = tabulate(checked, {cells[0].directory: outcome(rounds=3.0)})
    ends = (grid.CellEnd(cells[0], "finished", wall_s=3.0),)
    told = json.loads(json.dumps(as_json(Comparison(checked.request, "fedhera", ends, rows, ()))))
    assert told["cells"][0]["seed"] == 0
    assert "wall_s" not in told["cells"][0], "a table does not depend on how slow the machine was"
    assert next(row for row in told["rows"] if row["figure"] == "rounds")["values"] == {"0": 3.0}


# --- a record --------------------------------------------------------------------------------------------


def write_record(directory: Path, method_bytes=100):
    directory.mkdir(parents=True)
    lines = [
        {"event": "dispatched", "version": 0, "client": 4},
        {"event": "dispatched", "version": 0, "client": 6},
        {"event": "downloaded", "duration_s": 2.0},
        {"event": "trained", "duration_s": 5.0},
        {"event": "uploaded", "duration_s": 1.0},
        {"event": "declined"},
        {"event": "measured", "means": {"relative_drift": 0.5, "alignment": None}},
        {"event": "measured", "means": {"relative_drift": 0.7, "alignment": 0.9}},
    ]
    (directory / "events.jsonl").write_text(
        "".join(json.dumps({"time_s": 0.0, **line}) + "\n" for line in lines)
    )
    (directory / "metrics.csv").write_text(
        "version,time_s,bytes_down,bytes_up,loss,token_accuracy\n0,0.0,0,0,3.0,0.5\n1,9.0,60,40,2.0,0.6\n"
    )
    (directory / "summary.json").write_text(
        json.dumps(
            {
                "outcomes": {"aggregated": 1, "dropped: train": 1, "late": 2},
                "virtual_s": 9.0,
                "rounds": 1,
                "bytes_down": method_bytes,
                "bytes_up": 40,
                "utilisation": {"mean_memory_bytes": 7.0, "seconds": None, "memory_bytes": {"mean": 0.5}},
            }
        )
    )


def test_a_record_is_read_into_figures(tmp_path):
    write_record(tmp_path / "run")
    (tmp_path / "run/manifest.json").write_text('{"scenario_sha256": "x"}')
    found = read_outcome(tmp_path / "run")
    assert found.asked == {(0, 4), (0, 6)}
    expected = {
        "loss_final": 2.0, "token_accuracy_final": 0.6, "rouge_l_final": None, "bytes_moved": 140,
        "device_s": 8.0, "device_training_s": 5.0, "memory_bytes": 7.0, "memory_used_share": 0.5,
        "seconds_used_share": None, "bytes_used_share": None, "assignments": 4, "declined": 1,
        "dropped_share": 0.25, "late_share": 0.5, "timed_out_share": 0.0, "aggregated_share": 0.25,
        "relative_drift": 0.6, "alignment": 0.9, "virtual_s": 9.0, "rounds": 1, "bytes_down": 100,
        "bytes_up": 40, "updates_per_hour": 400.0, "wasted_bytes": 0,
    }  # fmt: skip
    assert found.figures == pytest.approx(expected)
    assert found.curve.at("loss", "bytes", 50.0) == 2.5
    assert found.curve.at("rouge_l", "bytes", 50.0) is None


def test_a_comparison_writes_its_table_and_what_failed(path, fake, monkeypatch):
    request = Request(path, "fedhera,fedhera:coupled=true", "0-1", path.parent / "out")
    checked = plan(request)
    fake(checked.cells, ["work", "work", "work", "fail"])
    monkeypatch.setattr("fedsim.experiment.compare.read_outcome", lambda _: outcome(rounds=3.0))
    pages = []
    monkeypatch.setattr(
        "fedsim.experiment.report.comparison.write_comparison",
        lambda folder, runs: pages.append((folder, runs)),
    )
    comparison = carry_out(checked, lambda end: None)
    assert [end.cell.label for end in comparison.failed] == ["fedhera:coupled=true, seed 1"]
    with (path.parent / "out/compare.csv").open() as file:
        table = {(row["method"], row["figure"]): row for row in csv.DictReader(file)}
    row = table["fedhera:coupled=true", "rounds"]
    assert (row["n"], row["pairs"], row["difference"], row["low"]) == ("1", "1", "0.0", "")
    assert (table["fedhera", "rounds"]["low"], table["fedhera", "rounds"]["reference"]) == ("0.0", "fedhera")
    told = json.loads((path.parent / "out/compare.json").read_text())
    assert [cell["status"] for cell in told["cells"]] == ["finished", "finished", "finished", "failed"]
    assert any("it broke" in note for note in told["notes"])
    assert [(folder, list(runs), [len(found) for found in runs.values()]) for folder, runs in pages] == [
        (path.parent / "out", ["fedhera", "fedhera:coupled=true"], [2, 1])
    ]
