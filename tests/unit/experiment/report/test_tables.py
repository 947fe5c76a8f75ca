import pytest

from fedsim.experiment.load import load_run
from fedsim.experiment.report import tables
from tests.records import write_record


@pytest.fixture
def run(tmp_path):
    return load_run(write_record(tmp_path / "run"))


def test_phases_add_up_to_the_life_of_each_assignment(run):
    spans = tables.phases(run)
    lived = spans.groupby("assignment")["duration_s"].sum()
    table = run.assignments.set_index("assignment")
    assert (lived == table["settled_at_s"] - table["dispatched_at_s"]).all()


def test_a_phase_that_was_cut_ends_where_its_assignment_did(run):
    dropped = tables.phases(run).query("assignment == 1")
    assert list(dropped["phase"]) == ["download"]  # this one left before its download was whole
    assert list(dropped["cut"]) == [True]
    assert list(dropped["end_s"]) == [36.0]


def test_waiting_at_the_server_is_not_work(run):
    # assignment 0: 10 s down, 20 s training, 5 s up, then 5 s until its version was made
    assert list(tables.work_s(run)) == [35.0, 36.0, 46.0, 10.0]


def test_participation_counts_devices_that_were_never_reached(run):
    table = tables.participation(run).set_index("class")
    phone = table.loc["phone"]
    assert (phone["devices"], phone["reached"], phone["contributed"], phone["declined"]) == (5, 2, 1, 1)
    assert phone["never_reached"] == 3
    assert table.loc["laptop", "aggregated"] == 0


def test_waste_holds_every_byte_and_hour_that_was_not_aggregated(run):
    table = tables.waste(run).set_index("cause")
    assert set(table.index) == {"dropped: train", "late", "cancelled"}
    aggregated = run.assignments[run.assignments["outcome"] == "aggregated"]
    total = run.assignments["bytes_down"].sum() + run.assignments["bytes_up"].sum()
    assert table["bytes"].sum() == total - aggregated["bytes_down"].sum() - aggregated["bytes_up"].sum()
    assert table["device_hours"].sum() == pytest.approx((36.0 + 46.0 + 10.0) / 3600.0)


def test_time_by_class_is_all_the_time_there_was(run):
    table = tables.time_by_class(run)
    assert table.to_numpy().sum() * 3600.0 == pytest.approx(tables.phases(run)["duration_s"].sum())
    assert table.loc["laptop", "lost"] * 3600.0 == pytest.approx(46.0)


def test_energy_by_class_tells_lost_work_apart(run):
    assert tables.energy_by_class(run).empty
    table = run.assignments
    table.loc[0, ["download_j", "train_j", "upload_j"]] = (360.0, 3600.0, 720.0)
    table.loc[1, ["download_j", "train_j", "upload_j"]] = (180.0, 0.0, 0.0)
    spent = tables.energy_by_class(run)
    assert spent.loc["phone"].to_dict() == pytest.approx(
        {"download": 0.1, "train": 1.0, "upload": 0.2, "lost": 0.05}
    )


@pytest.mark.parametrize(
    ("counts", "expected"),
    [([1, 1, 1, 1], 0.0), ([0, 0, 0, 8], 0.75), ([1, 3], 0.25), ([], None), ([0, 0], None)],
)
def test_gini(counts, expected):
    assert tables.gini(counts) == (None if expected is None else pytest.approx(expected))


def test_updates_are_counted_for_the_whole_fleet(run):
    assert sorted(tables.updates_per_device(run)) == [0, 0, 0, 0, 0, 1]


def test_layer_ranks_take_the_final_plans(run):
    table = tables.layer_ranks(run).set_index(["version", "layer"])
    # version 0: final plans (1, 1), (2, 2) and (2, 2); version 1: (1, 1)
    assert table.loc[(0, run.layers[0]), "total"] == pytest.approx(5 / 3)
    assert table.loc[(0, run.layers[1]), "trained"] == pytest.approx(1.0)
    assert table.loc[(1, run.layers[0]), "total"] == 1.0


def test_online_spans_end_at_departures(run):
    spans = tables.online_spans(run).set_index("client")
    assert spans.loc[1, "end_s"] == 36.0
    assert spans.loc[0, "end_s"] == run.end_s
