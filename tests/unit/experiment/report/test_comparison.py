import json

import numpy as np
import pytest

from fedsim.errors import InputError
from fedsim.experiment.load import load_run
from fedsim.experiment.paired import cohort_overlap
from fedsim.experiment.report.bands import mean_band
from fedsim.experiment.report.comparison import write_comparison
from fedsim.experiment.report.pairs import asked, paired_table
from tests.records import write_record
from tests.unit.experiment.report.test_run_page import figures, outline


def record(directory, *, seed, last_loss, stub=False):
    """A record of another seed, with another last loss."""
    write_record(directory, stub=stub)
    manifest = json.loads((directory / "manifest.json").read_text())
    (directory / "manifest.json").write_text(json.dumps({**manifest, "seed": seed}))
    metrics = directory / "metrics.csv"
    metrics.write_text(metrics.read_text().replace(",1.5,", f",{last_loss},"))
    return directory


@pytest.fixture
def grid(tmp_path):
    losses = {"base": (1.5, 1.7), "other": (1.4, 1.5)}
    return {
        name: [
            record(tmp_path / f"{name}-{seed}", seed=seed, last_loss=loss) for seed, loss in enumerate(pair)
        ]
        for name, pair in losses.items()
    }


def test_the_page_is_whole_and_tells_both_methods(grid, tmp_path):
    page = write_comparison(tmp_path / "out", grid).read_text()
    outline(page)
    assert len(page.encode()) < 6_000_000
    assert "1.6 ± 0.14" in page
    assert "1.45 ± 0.071" in page
    assert "memory per client" in page
    assert "device time" in page
    drawn = {figure["id"]: figure for figure in figures(page)}
    assert {"loss-time", "loss-bytes", "ranks", "updates", "waste"} <= set(drawn)
    means = [trace["name"] for trace in drawn["loss-time"]["data"] if "name" in trace]
    assert means == ["base", "other"]
    assert sum("fill" in trace for trace in drawn["loss-time"]["data"]) == 2


def test_pairs_are_taken_by_seed(grid):
    runs = {name: [load_run(path) for path in paths] for name, paths in grid.items()}
    table = paired_table(runs["base"], {"other": runs["other"][::-1]}).set_index("metric")
    row = table.loc["loss"]
    # differences are -0.1 and -0.2: mean -0.15, standard error 0.05, Student's t with one degree 12.706
    assert row["mean difference"] == "-0.15"
    low, high = (float(part) for part in row["95 % interval"].split(" to "))
    assert (low, high) == (pytest.approx(-0.7853, abs=1e-3), pytest.approx(0.4853, abs=1e-3))
    assert row["pairs"] == 2


def test_one_seed_has_no_interval_and_no_band(grid, tmp_path):
    page = write_comparison(tmp_path / "out", {name: paths[:1] for name, paths in grid.items()}).read_text()
    assert "needs two seeds" in page
    drawn = {figure["id"]: figure for figure in figures(page)}
    assert not any("fill" in trace for trace in drawn["loss-time"]["data"])


def test_cohorts_of_equal_records_are_the_same(grid):
    first, second = (load_run(path) for path in grid["base"])
    assert asked(first)
    assert cohort_overlap(asked(first), asked(second)) == 1.0


def test_a_band_is_taken_where_every_seed_has_values():
    first = (np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 2.0]))
    second = (np.array([1.0, 3.0]), np.array([3.0, 5.0]))
    places, mean, low, high = mean_band([first, second])
    assert (places[0], places[-1]) == (1.0, 2.0)
    assert (mean[0], low[0], high[0]) == (2.0, 1.0, 3.0)
    assert mean[-1] == pytest.approx(3.0)
    assert mean_band([first, (np.array([5.0]), np.array([1.0]))]) is None
    assert mean_band([(np.zeros(0), np.zeros(0))]) is None


def test_what_differs_besides_the_method_is_told(grid, tmp_path):
    path = grid["other"][0] / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["scenario"]["server"]["pacing"] = "buffered"
    path.write_text(json.dumps(manifest))
    assert (
        "The scenarios also differ in: server.pacing." in write_comparison(tmp_path / "out", grid).read_text()
    )


def test_stubs_and_runs_that_have_not_ended_are_told(grid, tmp_path):
    grid["other"][1] = record(tmp_path / "stub", seed=1, last_loss=1.0, stub=True)
    events = grid["base"][0] / "events.jsonl"
    events.write_text("".join(events.read_text().splitlines(keepends=True)[:-1]))
    page = write_comparison(tmp_path / "out", grid).read_text()
    assert "Nothing was trained in runs of other" in page
    assert "Not all runs have ended: base" in page


def test_stubs_alone_are_compared_in_words(tmp_path):
    runs = {"one": [record(tmp_path / "a", seed=0, last_loss=1, stub=True)]}
    page = write_comparison(tmp_path / "out", runs).read_text()
    assert "Not measured in any of these runs." in page


def test_nothing_to_compare_is_told(tmp_path):
    with pytest.raises(InputError, match="at least one method"):
        write_comparison(tmp_path, {})
