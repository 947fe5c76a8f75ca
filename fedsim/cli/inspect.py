"""Commands that look and change nothing: ``trace-client``, ``tail``, ``runs``."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsim.cli.report import RunArgument
from fedsim.cli.speech import JsonOption
from fedsim.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from fedsim.experiment.overview import Overview

POLL_S = 0.5
HEADINGS = ("run", "method", "seed", "loss", "virtual time", "bytes", "state")


def trace_client(
    run: RunArgument,
    client: Annotated[str, typer.Argument(metavar="CLIENT", help="Name or index of a device.")],
) -> None:
    """Tell everything that happened to one device, in words."""
    from fedsim.experiment.load import read_events, reading  # noqa: PLC0415 - keeps help fast
    from fedsim.experiment.record import EVENTS  # noqa: PLC0415 - keeps help fast
    from fedsim.experiment.report.telling import biography  # noqa: PLC0415 - keeps help fast

    with reading(run / EVENTS):
        for sentence in biography(read_events(run / EVENTS), client):
            typer.echo(printable(sentence))


def tail(
    run: RunArgument,
    *,
    once: Annotated[bool, typer.Option("--once", help="Stop at the end of what is there now.")] = False,
    clients: Annotated[bool, typer.Option("--clients", help="Tell of every client, too.")] = False,
) -> None:
    """Follow a run from another terminal until it ends; Ctrl-C stops following, not the run.

    A run writes its record whenever a round closes, so lines come in batches.
    """
    from fedsim.errors import InputError  # noqa: PLC0415 - beside the others
    from fedsim.experiment.load import reading  # noqa: PLC0415 - keeps help fast
    from fedsim.experiment.record import EVENTS  # noqa: PLC0415 - keeps help fast
    from fedsim.experiment.report.telling import SERVER_EVENTS, Teller  # noqa: PLC0415 - keeps help fast

    path = run / EVENTS
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected the folder of a run")
    teller = Teller()
    with reading(path):
        for line in _follow(path, once=once):
            said = teller.tell(line)
            if said is not None and (clients or line["event"] in SERVER_EVENTS):
                typer.echo(printable(said))


def _follow(path: Path, *, once: bool) -> Iterator[dict[str, object]]:
    """Yield lines as they are written, up to the one that says that the run has stopped."""
    from fedsim.experiment.load import parse_event  # noqa: PLC0415 - keeps help fast

    number, rest = 0, b""
    with path.open("rb") as file:
        while True:
            chunk = file.readline()
            rest += chunk
            if rest.endswith(b"\n"):
                number += 1
                line = parse_event(path, number, rest)
                rest = b""
                yield line
                if line["event"] == "stopped":
                    return
            elif once:
                return
            elif not chunk:
                time.sleep(POLL_S)


def runs(
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where runs lie.")] = Path("runs"),
    *,
    as_json: JsonOption = False,
) -> None:
    """List runs with their figures."""
    from fedsim.experiment import overview  # noqa: PLC0415 - keeps help fast

    found = overview.find_runs(directory)
    if as_json:
        typer.echo(overview.as_json(found))
        return
    if not found:
        typer.echo(f"no runs in {directory}")
        return
    rows = [HEADINGS, *(_row(run) for run in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _row(run: "Overview") -> tuple[str, ...]:
    losses = [f"{loss:.4f}" for loss in (run.first_loss, run.last_loss) if loss is not None]
    stub = run.executor == "stub"
    return tuple(
        printable(cell)
        for cell in (
            Path(run.directory).name,
            run.method,
            str(run.seed),
            "STUB, nothing trained" if stub else " -> ".join(losses) or "-",
            "-" if run.virtual_s is None else format_seconds(run.virtual_s),
            "-" if run.bytes_moved is None else format_bytes(run.bytes_moved),
            run.state,
        )
    )


def printable(text: str) -> str:
    """Keep what a file says from steering the terminal."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text
    )
