"""``fedsim traces``: import, make, check, describe and draw traces."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from fedsim.cli.examples import shown
from fedsim.cli.speech import QuietOption
from fedsim.cli.traces_check import check
from fedsim.cli.traces_import import import_traces
from fedsim.cli.traces_list import list_traces
from fedsim.cli.traces_plot import plot
from fedsim.cli.traces_stats import stats
from fedsim.cli.traces_write import check_target, encoded, write_all

traces_app = typer.Typer(no_args_is_help=True)


def synth(
    out: Annotated[Path, typer.Option(help="Folder to write; must be empty or absent.")],
    devices: Annotated[int, typer.Option(min=1, help="Size of the fleet.")] = 200,
    days: Annotated[int, typer.Option(min=1, max=366, help="Length of availability and state.")] = 7,
    seed: Annotated[int, typer.Option(help="Root of all draws.")] = 0,
    recipe: Annotated[
        str, typer.Option(help="Name of a recipe (see `fedsim traces list`), or a YAML file.")
    ] = "skewed_edge",
    file_format: Annotated[
        str, typer.Option("--format", help="csv, csv.gz or parquet; the columns are the same.")
    ] = "csv",
    force: Annotated[
        bool, typer.Option("--force", help="Replace what such a run wrote there before.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Generate devices, availability, bandwidth and state with a seed; the same seed gives the same bytes."""
    from fedsim.experiment.recipe_source import load_recipe  # noqa: PLC0415 - keeps help fast
    from fedsim.world.make import synth_fleet  # noqa: PLC0415 - as above

    check_target(out, force=force)
    made = synth_fleet(load_recipe(recipe), devices, days, seed)
    files = encoded(made, file_format)
    if Path(recipe).is_file():
        files[Path(recipe).name] = Path(recipe).read_bytes()  # the name that the README calls it by
    write_all(out, files)
    size_mb = sum(map(len, files.values())) / 1e6
    if not quiet:
        typer.echo(
            f"wrote {len(files)} files, {size_mb:.1f} MB, for {devices} devices and {days} days: {out}"
        )


COMMANDS: Mapping[str, Callable[..., None]] = {
    "import": import_traces,
    "check": check,
    "stats": stats,
    "plot": plot,
    "list": list_traces,
    "synth": synth,
}
for name, command in COMMANDS.items():
    traces_app.command(name, epilog=shown(f"traces {name}"))(command)
