"""``fedsim traces check``: read trace files by every rule, say what they hold and what was mended."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsim.cli.speech import JsonOption, QuietOption, tinted
from fedsim.errors import InputError, TraceError

if TYPE_CHECKING:
    from fedsim.world.formats.records import Mode, Record

ENDINGS = (".csv", ".csv.gz", ".parquet")
PathsArgument = Annotated[
    list[Path],
    typer.Argument(metavar="PATH...", help="Trace files, or folders of them; the header decides the kind."),
]


def trace_files(paths: Sequence[Path]) -> list[Path]:
    """Return the files, with folders replaced by the trace files in them.

    Raises:
        TraceError: If a folder holds none.
    """
    found: list[Path] = []
    for path in paths:
        inside = (
            [item for item in sorted(path.iterdir()) if item.name.endswith(ENDINGS)]
            if path.is_dir()
            else [path]
        )
        if not inside:
            raise TraceError(
                f"{path}: expected {', '.join(ENDINGS)} files in this folder, found none; name files"
            )
        found += inside
    return found


def check(
    paths: PathsArgument,
    lenient: Annotated[
        bool, typer.Option("--lenient", help="Drop and count rows that cannot be read.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse overlaps instead of joining them.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Read trace files, say what they hold, what was mended and what looks odd.

    Given a device file together with what it refers to, the references are checked too. Every file is read,
    also after one that is wrong.
    """
    if lenient and strict:
        raise TraceError("expected --lenient or --strict, got both; choose one")
    records, errors = _read_all(
        trace_files(paths), "lenient" if lenient else "strict" if strict else "normal"
    )
    if not errors:
        errors = _wrong_references(records)
    if as_json:
        typer.echo(json.dumps({"files": [_told(record) for record in records], "errors": errors}, indent=2))
    elif not quiet:
        _print(records)
    for message in errors[:-1]:
        typer.echo(f"{tinted('error:', 'red')} {message}", err=True)
    if errors:
        raise TraceError(errors[-1])


def _read_all(paths: Iterable[Path], mode: "Mode") -> "tuple[list[Record], list[str]]":
    from fedsim.world.formats.read import read_trace  # noqa: PLC0415 - imports pandas

    records, errors = [], []
    for path in paths:
        try:
            records.append(read_trace(path, mode=mode))
        except InputError as error:
            errors.append(str(error))
    return records, errors


def _wrong_references(records: "Sequence[Record]") -> list[str]:
    """Put a fleet together when exactly one is given, which resolves every reference."""
    from fedsim.world.assemble import FleetOptions, assemble_population  # noqa: PLC0415 - imports scipy
    from fedsim.world.formats.records import (  # noqa: PLC0415 - imports numpy
        AvailabilityTable,
        BandwidthTable,
        DeviceTable,
        StateTable,
    )

    devices = [record for record in records if isinstance(record, DeviceTable)]
    links = [record for record in records if isinstance(record, BandwidthTable)]
    stays = [record for record in records if isinstance(record, AvailabilityTable)]
    states = [record for record in records if isinstance(record, StateTable)]
    if len(devices) != 1 or len(links) != 1 or len(stays) > 1 or len(states) > 1:
        return []
    # A speed in tokens needs a model's price; any will do to look at references.
    options = FleetOptions(availability_policy="error" if stays else "always", flops_per_token=1.0)
    try:
        assemble_population(
            devices[0], stays[0] if stays else None, links[0], states[0] if states else None, options
        )
    except InputError as error:
        return [str(error)]
    return []


def _told(record: "Record") -> dict[str, object]:
    from fedsim.world.formats.summary import kind_of, summarise  # noqa: PLC0415 - imports numpy

    origin = record.origin
    return {
        "path": origin.path,
        "kind": kind_of(record),
        "summary": summarise(record),
        "notes": [note.removeprefix(f"{origin.path}: ") for note in origin.notes],
        "sha256": origin.sha256,
        "source": origin.source,
        "licence": origin.licence,
    }


def _print(records: "Iterable[Record]") -> None:
    from fedsim.world.formats.summary import summarise  # noqa: PLC0415 - imports numpy

    for record in records:
        typer.echo(f"{record.origin.path}: {summarise(record)}")
        for note in record.origin.notes:
            typer.echo(f"  note: {note.removeprefix(f'{record.origin.path}: ')}")
