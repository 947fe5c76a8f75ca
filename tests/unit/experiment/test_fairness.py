import numpy as np
import pytest

from fedsim.experiment.fairness import Fairness, gini


def test_gini_of_known_spreads():
    assert gini(np.array([3, 3, 3, 3])) == pytest.approx(0.0)
    assert gini(np.array([0, 0, 0, 8])) == pytest.approx(0.75)  # (n - 1) / n
    assert gini(np.array([1, 2, 3, 4])) == pytest.approx(0.25)
    assert gini(np.zeros(4)) is None


def test_shares_by_class_count_the_whole_fleet():
    fairness = Fairness(("board", "phone"), np.array([0, 1, 1, 1]))
    for client, outcome in ((0, "aggregated"), (0, "aggregated"), (1, "aggregated"), (2, "dropped")):
        fairness.observe(0.0, "dispatched", {"client": client})
        fairness.observe(1.0, "settled", {"client": client, "outcome": outcome})
    found = fairness.summary()
    assert found["never_asked"] == 1
    assert found["never_aggregated"] == 2
    assert found["by_class"]["board"] == {
        "devices": 1,
        "share_of_devices": 0.25,
        "share_of_updates": pytest.approx(2 / 3),
        "never_asked": 0,
        "never_aggregated": 0,
    }
    assert found["by_class"]["phone"]["share_of_updates"] == pytest.approx(1 / 3)
    assert found["by_class"]["phone"]["never_aggregated"] == 2
    assert found["gini_of_updates"] == pytest.approx(gini(np.array([2, 1, 0, 0])))


def test_a_run_without_updates_has_no_shares():
    found = Fairness(("phone",), np.zeros(3, dtype=int)).summary()
    assert found["gini_of_updates"] is None
    assert found["by_class"]["phone"]["share_of_updates"] is None
