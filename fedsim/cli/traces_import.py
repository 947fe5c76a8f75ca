"""``fedsim traces import``: published traces become canonical CSVs that a scenario can name."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsim.cli.speech import QuietOption
from fedsim.errors import TraceError
from fedsim.units import parse_quantity

if TYPE_CHECKING:
    from fedsim.world.importers.inputs import Chosen
    from fedsim.world.importers.writer import Written

FORMATS = (
    "stunner, fedscale, flash, mahimahi, hsdpa, ghent, ucc5g, nyu_mets, lumos5g, pensieve, oboe, or auto"
)

FormatArgument = Annotated[
    str, typer.Argument(metavar="FORMAT", help=f"One of {FORMATS} (decides by content).")
]
PathsArgument = Annotated[
    list[Path], typer.Argument(metavar="PATH...", help="Files, or folders to search for such files.")
]
OutOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to make.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace an earlier import in that folder.")]
MergeGapOption = Annotated[
    str | None,
    typer.Option(
        "--merge-gap",
        metavar="DURATION",
        help='Close absences of at most this length, e.g. "60 s" (availability; default: keep them, '
        "a scenario closes them when it reads the file).",
    ),
]
BinOption = Annotated[
    str | None,
    typer.Option(
        "--bin",
        metavar="DURATION",
        help='Width of a bin (mahimahi, default "1 s") or time between two drawn rates (flash, "60 s").',
    ),
]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Of the rates that are drawn (flash).")]


def import_traces(
    format_name: FormatArgument,
    paths: PathsArgument,
    out: OutOption,
    force: ForceOption = False,
    merge_gap: MergeGapOption = None,
    bin_width: BinOption = None,
    seed: SeedOption = None,
    quiet: QuietOption = False,
) -> None:
    """Convert published traces into canonical CSVs, each with its sidecar file."""
    from fedsim.world.importers.rows import Choices  # noqa: PLC0415 - imports pandas
    from fedsim.world.importers.run import import_published  # noqa: PLC0415 - imports pandas

    choices = Choices(
        merge_gap_s=_seconds("--merge-gap", merge_gap, minimum=0.0),
        bin_s=_seconds("--bin", bin_width, minimum=0.001),
        seed=seed,
    )
    chosen, written = import_published(format_name, paths, out, choices, force=force)
    if not quiet:
        taken = [f"taken for {chosen.name}"] if format_name != chosen.name else []
        typer.echo("\n".join([*taken, *_report(chosen, written)]))
    for doubt in written.doubts:
        typer.echo(f"note: {doubt}", err=True)


def _seconds(option: str, text: str | None, minimum: float) -> float | None:
    if text is None:
        return None
    try:
        duration_s = parse_quantity(text, "seconds")
    except ValueError as error:
        raise TraceError(f"{option}: {error}; write it like that") from None
    if not minimum <= duration_s <= 86_400:
        raise TraceError(f'{option}: expected {minimum:g} s to one day, found "{text}"; choose another')
    return duration_s


def _report(chosen: "Chosen", written: "Written") -> list[str]:
    number = len(chosen.inputs)
    lines = [f"read {number} file{'' if number == 1 else 's'} of {chosen.name}"]
    lines += [f"wrote {written.folder / name}: {rows:,} rows" for name, rows in written.rows.items()]
    return lines + [f"  {count:,} {what}" for what, count in written.counts.items()]
