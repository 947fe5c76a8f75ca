"""What one run of a comparison says: a curve read between its points, figures read from a record."""

import json
from pathlib import Path

import pytest

from fedsim.experiment.outcome import Curve, equal_end, read_outcome


def curve(times, losses, scale=10.0):
    return Curve(
        tuple(times),
        tuple(scale * t for t in times),
        {"loss": tuple(losses), "token_accuracy": (), "rouge_l": ()},
    )


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
        "updates_per_hour": 400.0, "wasted_bytes": 0, "energy_j": None,
        "relative_drift": 0.6, "alignment": 0.9, "virtual_s": 9.0, "rounds": 1, "bytes_down": 100,
        "bytes_up": 40,
    }  # fmt: skip
    assert found.figures == pytest.approx(expected)
    assert found.curve.at("loss", "bytes", 50.0) == 2.5
    assert found.curve.at("rouge_l", "bytes", 50.0) is None
