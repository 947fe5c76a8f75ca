"""``fedsim traces``: make a fleet of generated traces, or check trace files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from fedsim.errors import TraceError

traces_app = typer.Typer(no_args_is_help=True)


@traces_app.command("synth")
def synth(
    out: Annotated[Path, typer.Option(help="Folder to write; must be empty or absent.")],
    devices: Annotated[int, typer.Option(min=1, help="Size of the fleet.")] = 200,
    days: Annotated[int, typer.Option(min=1, max=366, help="Length of availability and state.")] = 7,
    seed: Annotated[int, typer.Option(help="Root of all draws.")] = 0,
    recipe: Annotated[str, typer.Option(help="Which fleet.")] = "skewed_edge",
    force: Annotated[
        bool, typer.Option("--force", help="Replace what such a run wrote there before.")
    ] = False,
) -> None:
    """Generate devices, availability, bandwidth and state with a seed; the same seed gives the same bytes."""
    from fedsim.world.recipe import synth_fleet  # noqa: PLC0415 - keeps help fast

    _check_target(out, force=force)
    files = synth_fleet(recipe, devices, days, seed)
    _write_all(out, files)
    size_mb = sum(len(text.encode()) for text in files.values()) / 1e6
    typer.echo(f"wrote {len(files)} files, {size_mb:.1f} MB, for {devices} devices and {days} days: {out}")


@traces_app.command("check")
def check(
    paths: Annotated[list[Path], typer.Argument(help="Trace files; the header decides the kind.")],
    lenient: Annotated[
        bool, typer.Option("--lenient", help="Drop and count rows that cannot be read.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse overlaps instead of joining them.")
    ] = False,
) -> None:
    """Read trace files and say what they hold, what was mended and what looks odd."""
    from fedsim.world.formats.read import read_trace  # noqa: PLC0415 - imports pandas
    from fedsim.world.formats.summary import summarise  # noqa: PLC0415 - as above

    if lenient and strict:
        raise TraceError("expected --lenient or --strict, got both; choose one")
    for path in paths:
        record = read_trace(path, mode="lenient" if lenient else "strict" if strict else "normal")
        typer.echo(f"{path}: {summarise(record)}")
        for note in record.origin.notes:
            typer.echo(f"  note: {note.removeprefix(f'{path}: ')}")


def _check_target(out: Path, *, force: bool) -> None:
    if out.exists() and not out.is_dir():
        raise TraceError(f"--out {out}: expected a folder, found a file; choose another path")
    if out.is_dir() and any(out.iterdir()) and not force:
        raise TraceError(f"--out {out}: expected an empty folder, found files; add --force to replace them")


def _write_all(out: Path, files: Mapping[str, str]) -> None:
    """Write beside the target, then move: a run that is cut short leaves nothing half-written."""
    from tempfile import TemporaryDirectory  # noqa: PLC0415 - keeps help fast

    parent = out.resolve().parent
    parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{out.name}-", dir=parent) as folder:
        made = Path(folder) / "traces"
        made.mkdir()
        for name, text in files.items():
            (made / name).write_text(text, encoding="utf-8", newline="\n")
        if out.is_dir() and any(out.iterdir()):
            # Only the files of such a run are replaced; whatever else lies there stays.
            for name in files:
                (made / name).replace(out / name)
        else:
            if out.is_dir():
                out.rmdir()
            made.replace(out)
