"""Every benchmark still finds what it imports from fedsim."""

import importlib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))


def test_there_are_benchmarks():
    assert {"allocator", "server_step", "overhead", "deferral", "startup"} <= set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_imports_and_has_a_main(name):
    assert callable(importlib.import_module(f"benchmarks.{name}").main)
