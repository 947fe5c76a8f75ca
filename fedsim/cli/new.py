"""``fedsim new``: a commented scenario from a few answers."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from fedsim.cli.speech import QuietOption
from fedsim.errors import ScenarioError, not_one_of

NO_TARGET = "none"


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the scenario; the file is NAME.yaml.")],
    recipe: Annotated[
        str | None, typer.Option(help="Recipe of the fleet.", show_default="skewed_edge")
    ] = None,
    traces: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder with trace files, in place of a recipe.")
    ] = None,
    devices: Annotated[int | None, typer.Option(min=1, help="Size of the fleet.", show_default="100")] = None,
    method: Annotated[str | None, typer.Option(help="See `fedsim methods`.", show_default="fedhera")] = None,
    pacing: Annotated[
        str | None, typer.Option(help="sync, semi_sync, buffered or async.", show_default="sync")
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="The run ends then.", show_default="12")] = None,
    stands_for: Annotated[
        str | None,
        typer.Option(
            help="Model whose bytes and seconds are charged, or `none`.", show_default="llama-3.2-1b"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Root of all draws.")] = 0,
    out: Annotated[Path | None, typer.Option(help="File to write.", show_default="NAME.yaml")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing; take the defaults.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Write a commented scenario. Asks for what no option says, where there is a terminal to ask."""
    from fedsim.experiment.new_scenario import Answers, write_scenario  # noqa: PLC0415 - keeps help fast

    ask = sys.stdin.isatty() and not yes
    if traces is not None and recipe is not None:
        raise ScenarioError("expected --recipe or --traces, got both; choose one")
    asked = traces is None
    answers = Answers(
        name=name,
        recipe=_answer("Recipe of the fleet", recipe, "skewed_edge", ask=ask and asked),
        devices=int(_answer("Devices", devices, 100, ask=ask)) if asked else devices,
        traces=traces,
        method=_known_method(_answer("Method", method, "fedhera", ask=ask)),
        pacing=_answer("Pacing (sync, semi_sync, buffered, async)", pacing, "sync", ask=ask),
        rounds=int(_answer("Rounds", rounds, 12, ask=ask)),
        stands_for=_target(_answer("Charged as model (or none)", stands_for, "llama-3.2-1b", ask=ask)),
        seed=seed,
    )
    _check_recipe(answers.recipe)
    path = write_scenario(out or _file_of(name), answers, force=force)
    if not quiet:
        typer.echo(f"wrote {path}")
        typer.echo(f"next: fedsim check {path} --preview", err=True)


def _answer(question: str, given: str | int | None, default: str | int, *, ask: bool) -> str:
    """Take what was said, else ask, else the default."""
    if given is not None:
        return str(given)
    return str(typer.prompt(question, default=default, err=True)) if ask else str(default)


def _file_of(name: str) -> Path:
    if not name or Path(name).name != name:
        raise ScenarioError(f'NAME: expected a word without slashes, got "{name}"; --out says where it goes')
    return Path(f"{name}.yaml")


def _known_method(name: str) -> str:
    from fedsim.method.catalogue import method_names  # noqa: PLC0415 - keeps help fast

    if name not in method_names():
        raise ScenarioError(f"--method: {not_one_of(name, method_names())}")
    return name


def _target(name: str) -> str | None:
    from fedsim.world.catalogue import CATALOGUE  # noqa: PLC0415 - keeps help fast

    if name not in {NO_TARGET, *CATALOGUE}:
        raise ScenarioError(f"--stands-for: {not_one_of(name, (NO_TARGET, *CATALOGUE))}")
    return None if name == NO_TARGET else name


def _check_recipe(name: str) -> None:
    from fedsim.experiment.recipe_source import load_recipe  # noqa: PLC0415 - keeps help fast

    load_recipe(name)
