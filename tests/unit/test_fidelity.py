"""The arithmetic of the fidelity benchmark, without its network."""

import json

import pytest

from benchmarks.fidelity import compare, record


def write_record(folder, phases, order=(0, 1)):
    """One round of two assignments with these phases."""
    folder.mkdir()
    lines = [
        {"time_s": 0.0, "event": "dispatched", "assignment": number, "client": number + 5, "version": 0}
        for number in range(2)
    ]
    for number, durations in enumerate(phases):
        names = ("downloaded", "trained", "uploaded")
        for k, (name, duration_s) in enumerate(zip(names, durations, strict=True)):
            lines.append(
                {
                    "time_s": sum(durations[: k + 1]),
                    "event": name,
                    "assignment": number,
                    "duration_s": duration_s,
                }
            )
    lines.append({"time_s": 99.0, "event": "aggregating", "assignments": list(order)})
    (folder / "events.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return record(folder)


def test_errors_are_relative_to_what_really_happened(tmp_path):
    simulated = write_record(tmp_path / "a", [(1.0, 2.0, 3.0), (1.0, 2.0, 3.0)])
    real = write_record(tmp_path / "b", [(2.0, 2.0, 4.0), (1.0, 2.0, 3.0)])
    found = compare(simulated, real)
    assert found["same_order"]
    assert found["errors"]["download"] == {"n": 2, "median": 0.25, "worst": 0.5, "late_s": 0.5}
    assert found["errors"]["train"]["worst"] == 0.0
    assert found["errors"]["transfer"] == {"n": 4, "median": 0.125, "worst": 0.5, "late_s": 0.5}
    assert found["errors"]["round"]["worst"] == pytest.approx(0.25)


def test_another_order_is_told(tmp_path):
    phases = [(1.0, 2.0, 3.0), (1.0, 2.0, 3.0)]
    simulated, real = (
        write_record(tmp_path / name, phases, order) for name, order in (("a", (0, 1)), ("b", (1, 0)))
    )
    assert not compare(simulated, real)["same_order"]
