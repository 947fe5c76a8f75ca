"""``fedsim report``: write the page, the timeline and the tables of a run."""

from pathlib import Path
from typing import Annotated

import typer

from fedsim.cli.speech import QuietOption

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")]


def report(
    run: RunArgument,
    *,
    tables: Annotated[
        bool, typer.Option("--tables", help="Also write every table as CSV and Parquet, into RUN/tables.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Write report.html and timeline.json of a run, also of one that is still at work.

    Open the report in a browser; load the timeline in Perfetto (https://ui.perfetto.dev).
    """
    from fedsim.experiment.load import TABLES, load_run, write_tables  # noqa: PLC0415 - keeps help fast
    from fedsim.experiment.report.write import TIMELINE, write_report  # noqa: PLC0415 - keeps help fast

    written = [write_report(run), run / TIMELINE]
    if tables:
        written += write_tables(load_run(run), run / TABLES)
    if not quiet:
        typer.echo("\n".join(map(str, written)))
