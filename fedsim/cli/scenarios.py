"""``fedsim check``: read a scenario and its traces, print what would run, run nothing."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsim.errors import ScenarioError

if TYPE_CHECKING:
    from fedsim.experiment.scenario import Scenario

ScenarioArgument = Annotated[
    Path, typer.Argument(help="A scenario file, for instance scenarios/skewed_edge.yaml.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one value, e.g. stop.rounds=4. May be repeated."),
]


def overrides(assignments: Sequence[str]) -> dict[str, str]:
    """Split ``key=value`` words.

    Raises:
        ScenarioError: If a word has no equals sign.
    """
    pairs = {}
    for word in assignments:
        key, equals, value = word.partition("=")
        if not equals:
            raise ScenarioError(f"--set {word}: expected key=value, for instance stop.rounds=4")
        pairs[key.strip()] = value
    return pairs


def check(scenario: ScenarioArgument, assignments: SetOption = None) -> None:
    """Check a scenario and its trace files, and print it with every default filled in."""
    from fedsim.experiment.scenario import load_scenario  # noqa: PLC0415 - keeps help fast

    resolved = load_scenario(scenario, overrides(assignments or []))
    _check_files(resolved)
    typer.echo(resolved.describe(), nl=False)


def _check_files(scenario: "Scenario") -> None:
    """Refuse a scenario whose input files are not there."""
    task, model, fleet = scenario.task, scenario.model, scenario.fleet
    files = {
        "fleet.devices": fleet.devices,
        "fleet.bandwidth": fleet.bandwidth,
        "fleet.availability": fleet.availability,
        "fleet.state": fleet.state,
        "task.train": task.train,
        "task.held_out": task.held_out,
    }
    for key, path in files.items():
        if path is not None and not path.is_file():
            raise scenario.error(key, f"no such file: {path}")
    if model.init_adapter is not None and not model.init_adapter.is_dir():
        raise scenario.error("model.init_adapter", f"no such folder: {model.init_adapter}")
