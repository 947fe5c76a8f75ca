"""``fedsim check``: read a scenario and its traces, say what would run or what it would do; run nothing."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsim.cli.speech import JsonOption, QuietOption
from fedsim.errors import ScenarioError, not_one_of

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


def check(
    scenario: ScenarioArgument,
    assignments: SetOption = None,
    *,
    preview: Annotated[
        bool, typer.Option("--preview", help="Go through it without training; say how long a run takes.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Check a scenario and its trace files, and print it with every default filled in, or what it will do."""
    from fedsim.experiment.fleet import build_population  # noqa: PLC0415 - imports pandas
    from fedsim.experiment.scenario import PATH_KEYS, load_scenario  # noqa: PLC0415 - keeps help fast

    changes = overrides(assignments or [])
    resolved = load_scenario(scenario, changes)
    _check_files(resolved, PATH_KEYS)
    _check_names(resolved)
    if resolved.method.options:  # the only thing a method can refuse; it imports torch, which takes seconds
        _check_options(resolved)
    for note in build_population(resolved).notes:
        if not quiet:
            typer.echo(f"note: {note}", err=True)
    if preview:
        from fedsim.cli.preview import told  # noqa: PLC0415 - imports torch

        dry = load_scenario(scenario, {**changes, "executor.kind": "stub"})
        typer.echo(told(dry, resolved, as_json=as_json))
    elif not quiet:
        typer.echo(resolved.canonical_json() if as_json else resolved.describe().rstrip())


def _check_options(scenario: "Scenario") -> None:
    """Refuse options that the method does not take."""
    from fedsim.experiment.methods import method_of  # noqa: PLC0415 - imports torch

    method_of(scenario)


def _check_files(scenario: "Scenario", keys: Sequence[str]) -> None:
    """Refuse a scenario whose input files are not there."""
    for dotted in keys:
        section, key = dotted.split(".")
        path = getattr(getattr(scenario, section), key)
        if isinstance(path, Path) and not path.exists():
            raise scenario.error(dotted, f"no such file: {path}")


def _check_names(scenario: "Scenario") -> None:
    """Refuse names that no catalogue knows."""
    from fedsim.method.catalogue import method_names  # noqa: PLC0415 - keeps help fast
    from fedsim.world.catalogue import CATALOGUE  # noqa: PLC0415 - keeps help fast

    target = scenario.model.stands_for
    for key, name, known in (
        ("method.name", scenario.method.name, method_names()),
        ("model.stands_for", target, tuple(CATALOGUE)),
    ):
        if name is not None and name not in known:
            raise scenario.error(key, not_one_of(name, known))
