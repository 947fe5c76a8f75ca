"""``fedsim run``: carry out one scenario."""

from pathlib import Path
from typing import Annotated

import typer

from fedsim.cli.scenarios import ScenarioArgument, SetOption, overrides


def run(
    scenario: ScenarioArgument,
    *,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the record; must be new or empty.", show_default="runs/...")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Same as --set seed=...")] = None,
    method: Annotated[str | None, typer.Option(help="Same as --set method.name=...")] = None,
    executor: Annotated[str | None, typer.Option(help="inline, workers or stub.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes; implies --executor workers.")] = None,
    assignments: SetOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.")] = False,
) -> None:
    """Run one scenario and write its record: events, metrics, adapter."""
    from fedsim.experiment.scenario import load_scenario  # noqa: PLC0415 - keeps help fast

    if workers is not None and executor is None:
        executor = "workers"
    short = {"seed": seed, "method.name": method, "executor.kind": executor, "executor.workers": workers}
    chosen = {key: str(value) for key, value in short.items() if value is not None}
    resolved = load_scenario(scenario, overrides(assignments or []) | chosen)

    from fedsim.experiment.run import run as run_scenario  # noqa: PLC0415 - imports torch

    run_scenario(resolved, out, quiet=quiet)
