import pandas as pd
import pytest

from fedsim.experiment.load import load_run
from fedsim.experiment.report.figure import HOUR_S
from fedsim.experiment.report.waits import KINDS, round_waits, wait_figure, wait_sentence
from tests.records import write_record


@pytest.fixture
def run(tmp_path):
    return load_run(write_record(tmp_path / "run"))


def test_a_round_is_cut_at_the_instants_of_its_last_update(run):
    """Dispatched at 0, downloaded at 10, trained at 30, uploaded at 35, closed at 40."""
    parts = (round_waits(run).iloc[0] * HOUR_S).round(6)
    assert parts.to_dict() == dict(zip(KINDS, (0.0, 10.0, 20.0, 5.0, 5.0), strict=True))


def test_parts_add_up_to_virtual_time(run):
    whole_s = float(run.rounds["time_s"].max())
    assert round_waits(run).to_numpy().sum() * HOUR_S == pytest.approx(whole_s)
    (said,) = wait_sentence(run)
    assert said.endswith("of each round: download 25 %, train 50 %, upload 12 %, until closed 12 %.")


def test_a_round_without_updates_waited_for_its_end(run, monkeypatch):
    lost = run.assignments.assign(outcome="dropped")
    monkeypatch.setattr(type(run), "assignments", lost, raising=False)
    assert (round_waits(run).iloc[0] * HOUR_S)["until closed"] == pytest.approx(40.0)


def test_an_update_that_began_in_an_earlier_round_counts_from_this_one_on(run):
    from fedsim.experiment.report.waits import _parts

    mine = pd.DataFrame(
        {"dispatched_at_s": [0.0], "downloaded_at_s": [5.0], "trained_at_s": [20.0], "uploaded_at_s": [30.0]}
    )
    assert _parts(mine, 10.0, 30.0) == [0.0, 0.0, 10.0, 10.0, 0.0]


def test_it_is_drawn(run):
    assert [trace["name"] for trace in wait_figure(run).traces] == list(KINDS)
