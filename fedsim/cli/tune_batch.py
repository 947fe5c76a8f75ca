"""``fedsim tune-batch``: measure how many clients should share a pass, and print the number to pin."""

import asyncio
import json
from typing import Annotated

import typer

from fedsim.cli.scenarios import ScenarioArgument, SetOption, overrides
from fedsim.cli.speech import JsonOption


def tune_batch(
    scenario: ScenarioArgument,
    assignments: SetOption = None,
    *,
    repeats: Annotated[int, typer.Option(min=1, help="Measurements of each number; the median counts.")] = 5,
    as_json: JsonOption = False,
) -> None:
    """Measure on this machine how many clients should go through the base in one pass."""
    from fedsim.experiment import tune_batch as tuning  # noqa: PLC0415 - imports torch
    from fedsim.experiment.scenario import load_scenario  # noqa: PLC0415 - keeps help fast

    changes = overrides(assignments or [])
    real = load_scenario(scenario, {**changes, "executor.kind": "inline"})
    first = load_scenario(scenario, {**changes, "executor.kind": "stub", "stop.rounds": "1"})
    found = asyncio.run(
        tuning.tune_batch(real, first, repeats=repeats, tell=lambda line: typer.echo(line, err=True))
    )
    best = tuning.best(found)
    if as_json:
        rows = [{"clients": one.clients, "step_s": one.step_s} for one in found]
        typer.echo(json.dumps({"batch_clients": best, "measured": rows}))
        return
    alone = found[0].step_s
    for one in found:
        if one.step_s is None or alone is None:
            typer.echo(f"{one.clients:>3} together  out of memory")
        else:
            faster = f"{alone / one.step_s:.2f} x as fast as one by one"
            typer.echo(f"{one.clients:>3} together  {1e3 * one.step_s:.1f} ms a step of a client, {faster}")
    typer.echo(f"to pin: executor: {{batch_clients: {best}}}")
