import json
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from fedsim.cli import main
from fedsim.cli.run import closing_lines
from fedsim.errors import StorageError
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
        "privacy": None,
        "steps": None,
        "report": None,
    }
    return SimpleNamespace(**{**values, **changes})


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Replace the runner by one that notes what it was asked for."""
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text(SCENARIO)
    noted = []

    def run(scenario, out=None, *, instruments=(), report=True, started=None, same_as=None):
        noted.append((scenario, out, list(instruments)))
        return result()

    def resume(directory, scenario, *, instruments=(), report=True, started=None):
        noted.append((scenario, directory, "resumed"))
        return result()

    fake = ModuleType("fedsim.experiment.run")
    fake.run, fake.resume = run, resume
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


@pytest.mark.parametrize("kind", ["inline", "stub"])
def test_workers_that_nobody_would_use_are_refused(calls, capsys, kind):
    assert ended("run", "x.yaml", "--workers", "3", "--executor", kind) == 2
    assert f"--workers 3: has no effect on --executor {kind}" in capsys.readouterr().err
    assert calls == []


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


@pytest.fixture
def killed(calls):
    """A folder with the manifest of a run."""
    from fedsim.experiment.scenario import load_scenario

    Path("killed").mkdir()
    scenario = load_scenario("x.yaml", {"seed": "5"}).model_dump(mode="json", by_alias=True)
    manifest = {"scenario": scenario, "scenario_directory": str(Path.cwd())}
    Path("killed/manifest.json").write_text(json.dumps(manifest))
    return calls


def test_a_resumed_run_takes_its_scenario_from_its_manifest(killed):
    ended("run", "--resume", "killed", "--workers", "3", "--set", "journal.keep=9", "--quiet")
    (scenario, directory, how), = killed  # fmt: skip
    assert (scenario.seed, scenario.executor.workers, scenario.journal.keep) == (5, 3, 9)
    assert (directory, how) == (Path("killed"), "resumed")


def test_a_resumed_run_may_be_given_its_scenario(killed):
    ended("run", "x.yaml", "--seed", "8", "--resume", "killed", "--quiet")
    assert killed[0][0].seed == 8


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--resume", "killed", "--seed", "1"], "seed: cannot change when a run goes on"),
        (["--resume", "killed", "--set", "stop.rounds=1"], "stop.rounds: cannot change"),
        (["--resume", "killed", "--out", "there"], "--out: a resumed run goes on in its own folder"),
        (["--resume", "nowhere"], "expected the folder of a run"),
        ([], "expected a scenario file, or --resume"),
    ],
)
def test_what_a_resume_cannot_do_is_one_line(killed, capsys, arguments, said):
    assert ended("run", *arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not killed


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (StorageError("full"), 1)])
def test_who_is_stopped_is_told_how_to_go_on(calls, monkeypatch, capsys, error, code):
    def run(scenario, out, *, instruments, report, started, same_as):
        started(Path("runs/x y"))
        raise error

    monkeypatch.setattr(sys.modules["fedsim.experiment.run"], "run", run)
    assert ended("run", "x.yaml", "--quiet") == code
    assert "to go on: fedsim run --resume 'runs/x y'" in capsys.readouterr().err


def test_the_end_of_a_run_tells_wasted_steps_where_there_are_any():
    def line(steps):
        return next(text for text in closing_lines(result(steps=steps)) if "local steps" in text)

    assert line({"asked": 1_200, "wasted": 0}).endswith("local steps  1,200")
    assert line({"asked": 1_200, "wasted": 60}).endswith("1,200, 60 of them wasted")
    assert not any("local steps" in text for text in closing_lines(result()))
