"""``fedsim traces plot``: a picture of one trace, or of two laid over each other."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsim.cli.speech import QuietOption
from fedsim.cli.traces_stats import DevicesOption, MergeOption, TraceArgument, read_for_figures, row_periods
from fedsim.errors import TraceError

if TYPE_CHECKING:
    from fedsim.world.draw.panels import Named, Picture
    from fedsim.world.formats.records import AvailabilityTable, Record


def plot(
    path: TraceArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="What to write: .png or .html.")],
    against: Annotated[
        Path | None, typer.Option("--against", help="Another trace of that kind to lay over it.")
    ] = None,
    devices: DevicesOption = None,
    merge_gap: MergeOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Draw a trace: who is online when with the daily curve, or rates over time and their distribution."""
    from fedsim.world.draw.html import to_html  # noqa: PLC0415 - imports numpy
    from fedsim.world.draw.png import to_png  # noqa: PLC0415 - as above

    writers = {".png": to_png, ".html": to_html}
    if out.suffix not in writers:
        raise TraceError(f"--out {out}: expected a name that ends with .png or .html; choose one")
    if out.exists() and not force:
        raise TraceError(f"--out {out}: expected no such file yet, found one; add --force to replace it")
    if not out.absolute().parent.is_dir():
        raise TraceError(f"--out {out}: expected a folder that is there; make it or choose another path")
    content = writers[out.suffix](_picture(path, against, devices, merge_gap))
    out.write_bytes(content)
    if not quiet:
        typer.echo(f"wrote {out}, {len(content) / 1e6:.1f} MB")


def _picture(path: Path, against: Path | None, devices: Path | None, merge_gap: float | None) -> "Picture":
    from fedsim.world.draw.panels import availability_picture, bandwidth_picture  # noqa: PLC0415 - numpy
    from fedsim.world.formats.records import AvailabilityTable, BandwidthTable  # noqa: PLC0415 - numpy

    first = read_for_figures(path, merge_gap)
    second = None if against is None else read_for_figures(against, merge_gap)
    names = _labels(path, against)
    _check_same_kind(first, second, path, against)
    if isinstance(first, AvailabilityTable):
        other = _named(names[1], second, None) if isinstance(second, AvailabilityTable) else None
        return availability_picture(_named(names[0], first, devices), other)
    if isinstance(first, BandwidthTable):
        pair = (names[1], second) if isinstance(second, BandwidthTable) else None
        return bandwidth_picture((names[0], first), pair)
    raise TraceError(f"{path}: expected availability or bandwidth, found another kind; see `traces check`")


def _check_same_kind(first: "Record", second: "Record | None", path: Path, against: Path | None) -> None:
    if second is not None and type(first) is not type(second):
        raise TraceError(
            f"--against {against}: expected the kind of {path}, found another; choose a fitting file"
        )


def _named(label: str, table: "AvailabilityTable", devices: Path | None) -> "Named":
    from fedsim.world.statistics import availability_statistics  # noqa: PLC0415 - imports numpy

    return label, table, availability_statistics(table, row_periods(table, devices))


def _labels(path: Path, against: Path | None) -> tuple[str, str]:
    return _label(path), "" if against is None else _label(against)


def _label(path: Path) -> str:
    """Name a file with its folder: the name alone is often just the kind."""
    return f"{path.absolute().parent.name}/{path.name}"
