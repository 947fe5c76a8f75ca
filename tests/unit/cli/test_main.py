import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from fedsim.cli import main
from fedsim.errors import ProtocolError, ScenarioError, TrainingError
from tests.records import write_record

ROOT = Path(__file__).parents[3]
HEAVY = {"torch", "datasets", "transformers", "peft", "scipy", "matplotlib", "simpy"}


def fresh(*arguments):
    """Run a command in a new interpreter; return its exit code and the top-level modules it loaded."""
    code = (
        "import sys\n"
        "from fedsim.cli import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "except SystemExit as ended:\n"
        "    code = ended.code\n"
        "print('\\n@', code, *sorted({name.split('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    _, code, *modules = done.stdout.splitlines()[-1].split()
    return code, set(modules)


def ended(*arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return caught.value.code


def failing(monkeypatch, error):
    def command():
        raise error

    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(command)
    monkeypatch.setattr(importlib.import_module("fedsim.cli.main"), "app", app)


def test_help_loads_nothing_heavy():
    code, modules = fresh("--help")
    assert code in {"0", "None"}
    assert not modules & (HEAVY | {"numpy", "pandas", "pydantic", "rich"})


def test_check_loads_nothing_heavy():
    code, modules = fresh("check", "scenarios/skewed_edge.yaml")
    assert code in {"0", "None"}
    assert "pydantic" in modules  # it did read the scenario
    assert not modules & HEAVY


LIGHT = {
    "check scenarios/skewed_edge.yaml",
    "compare --help",
    "export --help",
    "methods",
    "report {run}",
    "run --help",
    "runs {run}/..",
    "tail {run}",
    "traces check traces/skewed_edge/availability.csv",
    "traces list",
    "verify --help",
}


def test_torch_is_loaded_only_by_what_computes_with_tensors(tmp_path):
    """Whoever reads a scenario, a trace or a record computes with none."""
    run = write_record(tmp_path / "run")
    code = (
        "import sys\n"
        "from fedsim.cli import main\n"
        "for line in sys.argv[1:]:\n"
        "    try:\n"
        "        main(line.split())\n"
        "    except SystemExit as ended:\n"
        "        print('\\n@', ended.code or 0, 'torch' in sys.modules, line)\n"
    )
    lines = [line.format(run=run) for line in sorted(LIGHT)]
    done = subprocess.run(
        [sys.executable, "-c", code, *lines],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    said = [line for line in done.stdout.splitlines() if line.startswith("@ ")]
    assert said == [f"@ 0 False {line}" for line in lines]


def test_help_names_the_commands(capsys):
    assert ended("--help") in {0, None}
    text = capsys.readouterr().out
    assert all(f"\n  {command} " in text for command in ("run", "check", "traces"))


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "fedsim", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.startswith("Usage: fedsim [OPTIONS] COMMAND")


def test_version_is_that_of_the_distribution(capsys):
    assert ended("--version") in {0, None}
    declared = next(
        line.split('"')[1]
        for line in (ROOT / "pyproject.toml").read_text().splitlines()
        if line.startswith("version")
    )
    assert capsys.readouterr().out == f"fedsim {declared}\n"


def test_an_unknown_command_is_a_usage_error(capsys):
    assert ended("fly") == 2
    assert "No such command 'fly'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [(ScenarioError("x.yaml:1: a: b"), 2), (TrainingError("loss is nan"), 1), (ProtocolError("bug"), 1)],
)
def test_an_error_on_purpose_is_one_line(monkeypatch, capsys, error, code):
    failing(monkeypatch, error)
    assert ended() == code
    assert capsys.readouterr() == ("", f"error: {error}\n")


def test_an_interrupt_ends_with_130(monkeypatch):
    failing(monkeypatch, KeyboardInterrupt())
    assert ended() == 130


def test_a_bug_keeps_its_traceback(monkeypatch):
    failing(monkeypatch, ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        main([])
