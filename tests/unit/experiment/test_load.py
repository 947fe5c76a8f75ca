import json

import pandas as pd
import pytest

from fedsim.errors import InputError
from fedsim.experiment.load import load_run, write_tables
from tests.records import write_record


@pytest.fixture
def run(tmp_path):
    return load_run(write_record(tmp_path / "run"))


def test_every_assignment_has_its_phases_plan_and_end(run):
    table = run.assignments.set_index("assignment")
    assert list(table["outcome"]) == ["aggregated", "dropped", "late", "cancelled"]
    first = table.loc[0]
    assert (first["download_s"], first["train_s"], first["upload_s"]) == (10.0, 20.0, 5.0)
    assert (first["offered_plan"], first["plan"], first["num_replans"]) == (0, 1, 1)
    assert (first["loss"], first["alignment"], first["weight"], first["staleness"]) == (1.75, 0.9, 1.0, 0)
    assert table.loc[1, "phase"] == "train"
    assert pd.isna(table.loc[1, "train_s"])


def test_what_a_plan_uses_is_recomputed_from_the_prices(run):
    first, second = (run.assignments.set_index("assignment").loc[number] for number in (0, 1))
    assert first["planned_bytes_down"] == 10 + 20
    assert second["planned_bytes_up"] == 2 * 10 + 20
    # base, two columns of tail and one trained column per layer, one saved input per group
    assert first["memory_bytes"] == 100 + (1 + 2) + (3 + 4) + (5 + 6)
    assert first["used_memory"] == pytest.approx(121 / 2000)
    flop = 1000 + (7 + 8) + (9 + 10)
    assert first["planned_s"] == pytest.approx(8 * 30 / 800 * 2 + flop / 100)
    assert first["used_seconds"] == pytest.approx(first["planned_s"] / 100)


def test_versions_and_rounds(run):
    assert run.rounds.to_dict("records") == [
        {"time_s": 40.0, "version": 1, "num_updates": 1, "failed": 0, "round": 0, "result": "aggregated"}
    ]
    assert run.layer_spectra["energy"].sum() == 3.0
    assert (run.end_s, run.reason) == (60.0, "1 round is over")
    assert list(run.evaluations["loss"]) == [2.0, 1.5]


def test_a_torn_last_line_is_dropped(tmp_path):
    directory = write_record(tmp_path / "run")
    whole = load_run(directory)
    with (directory / "events.jsonl").open("a") as file:
        file.write('{"time_s": 61.0, "event": "arri')
    torn = load_run(directory)
    assert torn.num_lines == whole.num_lines
    assert torn.end_s == 60.0


def test_a_table_of_metrics_with_a_column_twice_is_refused(tmp_path):
    directory = write_record(tmp_path / "run")
    (directory / "metrics.csv").write_text("version,loss,loss\n0,2.0,1.0\n1,1.5,1.0\n")
    with pytest.raises(InputError, match=r"metrics\.csv:1: expected every column once, found 'loss' 2 times"):
        load_run(directory)


def test_a_run_that_was_killed_has_open_assignments(tmp_path):
    directory = write_record(tmp_path / "run")
    events = directory / "events.jsonl"
    kept = [
        line for line in events.read_text().splitlines(keepends=True) if json.loads(line)["time_s"] < 36.0
    ]
    events.write_text("".join(kept))
    (directory / "summary.json").unlink()
    (directory / "metrics.csv").unlink()
    run = load_run(directory)
    assert run.assignments["outcome"].isna().all()
    assert (run.reason, run.summary) == (None, None)
    assert list(run.evaluations["version"]) == [0]  # from the record itself


def test_a_damaged_line_is_told_with_its_number(tmp_path):
    directory = write_record(tmp_path / "run")
    events = directory / "events.jsonl"
    lines = events.read_text().splitlines(keepends=True)
    events.write_text("".join([*lines[:2], "not json\n", *lines[2:]]))
    with pytest.raises(InputError, match=r"events\.jsonl:3: expected one JSON object per line"):
        load_run(directory)


def test_a_folder_that_is_no_run_is_told(tmp_path):
    with pytest.raises(InputError, match=r"manifest\.json.*expected the folder of a run"):
        load_run(tmp_path)


def test_tables_survive_the_way_to_disk(run, tmp_path):
    written = write_tables(run, tmp_path / "tables")
    assert {path.suffix for path in written} == {".csv", ".parquet"}
    back = pd.read_parquet(tmp_path / "tables" / "plans.parquet")
    assert [list(ranks) for ranks in back["total"]] == [[2, 2], [1, 1]]
    assert len(pd.read_csv(tmp_path / "tables" / "assignments.csv")) == 4
    assert not (tmp_path / "tables" / "pauses.csv").exists()  # no rows, no file
