import sys
from collections import Counter
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from fedsim.cli import main
from fedsim.cli.run import closing_lines
from fedsim.experiment.record import Tally

SCENARIO = """\
fleet: {devices: devices.csv, bandwidth: bandwidth.csv, availability_policy: always}
stop: {rounds: 3}
"""


def result(**changes):
    values = {
        "directory": Path("runs/x-0"),
        "reason": "3 rounds",
        "record_hash": "ab" * 32,
        "evaluations": ({"loss": 2.0}, {"loss": None}, {"loss": 1.25}),
        "tally": Tally(
            outcomes=Counter({"dropped: upload": 2, "aggregated": 5}),
            by_class=Counter({"phone-low": 4, "laptop": 1}),
            bytes_down=3_000_000,
            bytes_up=1_500,
            rounds=3,
        ),
        "virtual_s": 3_661.0,
        "wall_s": 12.4,
    }
    return SimpleNamespace(**{**values, **changes})


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Replace the runner by one that notes what it was asked for."""
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text(SCENARIO)
    noted = []

    def run(scenario, out=None, *, instruments=()):
        noted.append((scenario, out, list(instruments)))
        return result()

    fake = ModuleType("fedsim.experiment.run")
    fake.run = run
    monkeypatch.setitem(sys.modules, "fedsim.experiment.run", fake)
    return noted


def ended(*arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return caught.value.code


def test_options_are_short_for_values_of_the_scenario(calls):
    code = ended(
        "run", "x.yaml", "--out", "here", "--seed", "7", "--method", "flexlora", "--executor", "stub",
        "--set", "stop.rounds=1", "--set", "server.deadline=2 h", "--quiet",
    )  # fmt: skip
    (scenario, out, instruments), = calls  # fmt: skip
    assert code in {0, None}
    assert (scenario.seed, scenario.method.name, scenario.executor.kind) == (7, "flexlora", "stub")
    assert (scenario.stop.rounds, scenario.server.deadline_s) == (1, 7200.0)
    assert (out, instruments) == (Path("here"), [])


def test_a_number_of_workers_asks_for_workers(calls):
    ended("run", "x.yaml", "--workers", "3", "--quiet")
    executor = calls[0][0].executor
    assert (executor.kind, executor.workers) == ("workers", 3)


def test_unless_quiet_somebody_watches(calls):
    ended("run", "x.yaml")
    (_, out, instruments), = calls  # fmt: skip
    assert out is None
    assert len(instruments) == 1
    assert callable(instruments[0].observe)


def test_the_closing_table_goes_to_stdout(calls, capsys):
    ended("run", "x.yaml", "--quiet")
    assert capsys.readouterr().out == "\n".join(closing_lines(result())) + "\n"


@pytest.mark.parametrize(
    "option", [["--seed", "x"], ["--workers", "0"], ["--executor", "inlin"], ["--seed", "-1"]]
)
def test_a_wrong_option_starts_nothing(calls, capsys, option):
    assert ended("run", "x.yaml", *option) == 2
    assert not calls
    assert capsys.readouterr().err


def test_the_closing_table_says_what_came_of_the_run():
    table = dict(line.strip().split("  ", 1) for line in closing_lines(result()))
    assert table == {
        "ended": "3 rounds",
        "virtual time": "01:01:01, 3 rounds",
        "loss": "2.0000 -> 1.2500",
        "assignments": "5 aggregated, 2 dropped: upload",
        "updates from": "laptop 1, phone-low 4",
        "bytes": "3.0 MB down, 1.5 kB up",
        "wall time": "12 s",
        "events sha256": "ab" * 32,
        "record": "runs/x-0",
    }


def test_a_stub_has_no_loss_to_show():
    lines = closing_lines(result(evaluations=({"loss": None},)))
    assert any(line.endswith("not measured: nothing was trained") for line in lines)
