"""Comparisons: what is asked for, what a difference is, and what is written."""

import csv
import json

import pytest

from fedsim.errors import InputError
from fedsim.experiment import grid
from fedsim.experiment.compare import (
    Comparison,
    Plan,
    Request,
    as_json,
    bounds,
    carry_out,
    notes,
    plan,
    tabulate,
)
from tests.comparisons import cells_of, fake_runs, outcome, write_world


@pytest.fixture
def path(tmp_path):
    return write_world(tmp_path)


@pytest.fixture
def fake(tmp_path, monkeypatch):
    return fake_runs(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": "fedhra"}, '--methods fedhra: .* did you mean "fedhera"'),
        ({"methods": "fedhera:foo=1"}, "method.options.foo: unknown option"),
        ({"methods": "fedhera:beta=7"}, "method.options.beta: expected a number from 0 to 1"),
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
