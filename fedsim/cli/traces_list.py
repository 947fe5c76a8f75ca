"""``fedsim traces list``: which recipes and which trace files are there?"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsim.cli.speech import JsonOption
from fedsim.cli.traces_check import ENDINGS
from fedsim.errors import InputError, TraceError

if TYPE_CHECKING:
    from fedsim.world.formats.records import Record

HEADER = ("trace", "kind", "entries", "days", "licence")


def list_traces(
    folder: Annotated[Path, typer.Argument(help="Folder to search, with all folders in it.")] = Path(
        "traces"
    ),
    as_json: JsonOption = False,
) -> None:
    """List the recipes that come with fedsim and the trace files under a folder."""
    from fedsim.experiment.recipe_source import load_recipe, recipe_names  # noqa: PLC0415 - imports pydantic

    rows: list[tuple[str, ...]] = []
    for name in recipe_names():
        classes = load_recipe(name).classes
        rows.append((name, "recipe", f"{len(classes)} classes", "any", "Apache-2.0"))
    if not folder.is_dir() and folder != Path("traces"):
        raise TraceError(f"{folder}: expected a folder, found none; name the folder that holds the traces")
    if folder.is_dir():
        rows += list(_files(folder))
    if as_json:
        typer.echo(json.dumps([dict(zip(HEADER, row, strict=True)) for row in rows], indent=2))
        return
    rows.insert(0, HEADER)
    widths = [max(len(row[k]) for row in rows) for k in range(len(HEADER))]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _files(folder: Path) -> Iterator[tuple[str, str, str, str, str]]:
    from fedsim.world.formats.read import read_trace  # noqa: PLC0415 - imports pandas

    for path in sorted(folder.rglob("*")):
        if path.name.endswith(ENDINGS) and path.is_file():
            try:
                yield _row(path, read_trace(path))
            except InputError:
                yield (str(path), "unreadable", "see `fedsim traces check`", "", "")


def _row(path: Path, record: "Record") -> tuple[str, str, str, str, str]:
    from fedsim.world.formats.records import (  # noqa: PLC0415 - imports numpy
        AvailabilityTable,
        BandwidthTable,
        StateTable,
    )
    from fedsim.world.formats.summary import kind_of  # noqa: PLC0415 - as above
    from fedsim.world.statistics import DAY_S, segments  # noqa: PLC0415 - as above

    period_s: float | None = None
    if isinstance(record, BandwidthTable):
        count = f"{len(record.traces):,} traces"
        period_s = sum(float(segments(trace.down)[1].sum()) for trace in record.traces)
    else:
        count = f"{len(record.ids):,} devices"
    if isinstance(record, AvailabilityTable | StateTable):
        period_s = record.period_s
    days = "" if period_s is None else f"{period_s / DAY_S:.3g}"
    return str(path), kind_of(record), count, days, record.origin.licence or "not stated"
