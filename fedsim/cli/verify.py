"""``fedsim verify``: check that a run tells the truth."""

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer

from fedsim.cli.speech import JsonOption, QuietOption

DAMAGED = 1


def verify(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    *,
    replay: Annotated[
        bool, typer.Option("--replay", help="Also replay the clock against the journal, line by line.")
    ] = False,
    retrain: Annotated[
        int, typer.Option(min=0, metavar="N", help="Also train N updates again; implies --replay.")
    ] = 0,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Re-check hashes, laws and budgets of a run, over its whole record; exit code 1 if any is broken."""
    from fedsim.experiment.verify import shown  # noqa: PLC0415 - keeps help fast
    from fedsim.experiment.verify import verify as check  # noqa: PLC0415 - keeps help fast

    verdict = check(run)
    if replay or retrain:
        from fedsim.experiment.retrain import retrain as train_again  # noqa: PLC0415 - imports torch

        asyncio.run(train_again(run, retrain, verdict))
    if as_json:
        told = {"findings": verdict.findings, "notes": verdict.notes, "counts": dict(verdict.counts)}
        typer.echo(json.dumps(told, indent=2))
    elif verdict.findings or not quiet:
        typer.echo("\n".join(shown(verdict)))
    if verdict.findings:
        raise typer.Exit(DAMAGED)
