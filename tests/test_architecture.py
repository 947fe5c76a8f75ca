"""The shape of the code: layers, sizes, the public names, no printing."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "fedsim").rglob("*.py"))
MAX_LINES = 400


def named(path):
    return str(path.relative_to(ROOT))


def test_import_contracts_hold():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command as lint; lint()",
            "--no-cache",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " kept, 0 broken." in done.stdout


@pytest.mark.parametrize("path", [*SOURCES, *sorted((ROOT / "tests").rglob("*.py"))], ids=named)
def test_a_file_can_be_read_in_one_sitting(path):
    assert len(path.read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_a_module_says_what_it_is_for(path):
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", [path for path in SOURCES if "cli" not in path.parts], ids=named)
def test_only_the_command_line_prints(path):
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert not [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


RESTRICTED_READER = ROOT / "fedsim/world/importers/pickles.py"  # checks every instruction before it runs


def imported(nodes):
    """Names of the modules that these statements import."""
    return {
        name
        for node in nodes
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }


@pytest.mark.parametrize("path", [path for path in SOURCES if path != RESTRICTED_READER], ids=named)
def test_nothing_is_unpickled(path):
    found = imported(ast.walk(ast.parse(path.read_text())))
    assert not found & {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


PRETRAINING = ROOT / "fedsim/learn/embedded/pretrain.py"  # loaded by nothing else
SLOW_TO_IMPORT = {"transformers", "peft", "datasets", "sklearn", "matplotlib"}


@pytest.mark.parametrize("path", [path for path in SOURCES if path != PRETRAINING], ids=named)
def test_what_takes_seconds_to_import_is_imported_where_it_is_needed(path):
    """A resumed run goes through its record, and a check through its scenario, before any of it is needed."""
    found = imported(ast.parse(path.read_text()).body)
    assert not {name.partition(".")[0] for name in found} & SLOW_TO_IMPORT


def test_public_names_are_listed_once_and_exist():
    fedsim = importlib.import_module("fedsim")
    assert len(set(fedsim.__all__)) == len(fedsim.__all__) >= 2
    assert {"run", "arun"} <= set(fedsim.__all__)
    assert all(getattr(fedsim, name) is not None for name in fedsim.__all__)
    drawn = {name for name in dir(fedsim) if not name.startswith("_")}
    modules = {path.stem for path in (ROOT / "fedsim").iterdir()}
    assert drawn - modules <= set(fedsim.__all__)
