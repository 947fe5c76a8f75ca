"""Every shipped scenario that needs no other files runs with the stub and prints what stands beside it."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedsim.cli.main import app
from fedsim.experiment.learning_sections import EMBEDDED
from fedsim.experiment.scenario import load_scenario

LARGE = ("million_phones",)  # minutes each
SCENARIOS = [
    pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem in LARGE else [])
    for path in sorted((Path(__file__).parents[2] / "scenarios").glob("*.yaml"))
    if load_scenario(path).model.base == EMBEDDED  # the others: test_real_models.py
]
# The hash pins every bit of every float, which another CPU may round differently.
OF_THIS_MACHINE = re.compile(r"^\s*(wall time|events sha256|record|report)\s.*\n", re.MULTILINE)


@pytest.mark.parametrize("path", SCENARIOS)
def test_prints_what_stands_beside_it(path, tmp_path, write_goldens):
    beside = path.with_suffix(".out")
    if not beside.exists() and not write_goldens:
        pytest.fail(f"{beside.name} is missing; write it with --write-goldens")
    arguments = ["run", str(path), "--executor", "stub", "--quiet", "--out", str(tmp_path / "run")]
    shown = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert shown.exit_code == 0
    text = OF_THIS_MACHINE.sub("", shown.stdout)
    assert "ended" in text
    if write_goldens:
        beside.write_text(text)
    assert text == beside.read_text()
