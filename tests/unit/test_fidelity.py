"""The arithmetic of the fidelity benchmark, without its network."""

import json

import pytest

from benchmarks import _shaped_net as shaped_net
from benchmarks.fidelity import LEAST_MBPS, OFFSETS_S, TRACE_S, client_lines, compare, record


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


def test_lines_follow_shipped_traces_second_by_second():
    lines = client_lines()
    assert [len(line.down) for line in lines] == [TRACE_S - offset for offset in OFFSETS_S]
    assert min(min(*line.down, *line.up) for line in lines) == LEAST_MBPS
    assert lines[1].down[60:70] == lines[3].down[:10]  # one trace, a minute apart
    assert len(set(lines[0].up)) > 50


def test_the_payload_of_a_bucket_is_what_the_trace_says():
    end = shaped_net._End("s", "v0", [1.448, 2.896])
    assert "htb rate 1514000bit ceil 1514000bit" in end.class_at(0, "change")
    assert "htb rate 3028000bit" in end.class_at(3, "change")  # and again from the start


def test_links_are_where_the_simulation_says_when_a_round_begins(monkeypatch):
    came = []

    class Setters:
        def __init__(self, net):
            pass

        def __enter__(self):
            return self

        def set(self, at_s):
            came.append(at_s)
            shaper.end_soon()

        def __exit__(self, *_):
            pass

    class Shaper(shaped_net.Shaper):
        def end_soon(self):
            (self.begin if len(came) < 2 else self.over.set)()
            self.changed.set()

    monkeypatch.setattr(shaped_net, "_Setters", Setters)
    monkeypatch.setattr(shaped_net.os, "sched_setscheduler", lambda *_: None)
    shaper = Shaper(None, [5.2, 31.0])
    shaper.begin()
    shaper.start()
    shaper.join(30)
    shaper.end()
    assert came == [5, 31]
