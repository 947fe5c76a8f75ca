"""``fedsim run``: carry out one scenario."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsim.cli.scenarios import ScenarioArgument, SetOption, overrides
from fedsim.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from fedsim.experiment.run import Result


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
    report: Annotated[bool, typer.Option(help="Write report.html and timeline.json at the end.")] = True,
) -> None:
    """Run one scenario and write its record: events, metrics, adapter."""
    from fedsim.experiment.scenario import load_scenario  # noqa: PLC0415 - keeps help fast

    if workers is not None and executor is None:
        executor = "workers"
    short = {"seed": seed, "method.name": method, "executor.kind": executor, "executor.workers": workers}
    chosen = {key: str(value) for key, value in short.items() if value is not None}
    resolved = load_scenario(scenario, overrides(assignments or []) | chosen)

    from fedsim.cli.progress import open_progress  # noqa: PLC0415 - keeps help fast
    from fedsim.experiment.run import run as run_scenario  # noqa: PLC0415 - imports torch

    progress = None if quiet else open_progress()
    try:
        watching = [] if progress is None else [progress]
        result = run_scenario(resolved, out, instruments=watching, report=report)
    finally:
        if progress is not None:
            progress.close()
    typer.echo("\n".join(closing_lines(result)))


def closing_lines(result: "Result") -> list[str]:
    """Say what came of a run: what ended it, what it cost, what it brought, where the record lies."""
    tally = result.tally
    losses = [f"{row['loss']:.4f}" for row in result.evaluations if isinstance(row.get("loss"), float)]
    rows = {
        "ended": result.reason,
        "virtual time": f"{format_seconds(result.virtual_s)}, {tally.rounds} rounds",
        "loss": f"{losses[0]} -> {losses[-1]}" if losses else "not measured: nothing was trained",
        "assignments": ", ".join(f"{count} {outcome}" for outcome, count in sorted(tally.outcomes.items())),
        "updates from": ", ".join(f"{name} {count}" for name, count in sorted(tally.by_class.items())),
        "bytes": f"{format_bytes(tally.bytes_down)} down, {format_bytes(tally.bytes_up)} up",
        "wall time": f"{result.wall_s:.0f} s",
        "events sha256": result.record_hash,
        "record": str(result.directory),
    }
    if result.report is not None:
        rows["report"] = str(result.report)
    return [f"{name:>13}  {text}" for name, text in rows.items()]
