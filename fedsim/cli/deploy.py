"""``fedsim serve`` and ``fedsim join``: carry out a scenario for real, over TCP."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from fedsim.cli.scenarios import ScenarioArgument, SetOption, overrides
from fedsim.errors import InputError
from fedsim.units import Quantity, parse_quantity

TokenOption = Annotated[
    Path, typer.Option(help="File with the secret that server and clients share; serve makes one.")
]


def serve(
    scenario: ScenarioArgument,
    *,
    token_file: TokenOption,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any free one.")] = 7117,
    clients: Annotated[int, typer.Option(min=1, help="Begin when so many are ready.")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the record; must be new or empty.", show_default="runs/...")
    ] = None,
    assignments: SetOption = None,
    report: Annotated[bool, typer.Option(help="Write report.html and timeline.json at the end.")] = True,
) -> None:
    """Be the server of a real run: clients join, train in their own processes, and send what they learnt."""
    import asyncio  # noqa: PLC0415 - keeps help fast

    from fedsim.cli.run import closing_lines  # noqa: PLC0415 - keeps help fast
    from fedsim.deploy.secret import read_token  # noqa: PLC0415 - keeps help fast
    from fedsim.deploy.serve import Service  # noqa: PLC0415 - imports torch
    from fedsim.deploy.serve import serve as serve_scenario  # noqa: PLC0415 - imports torch
    from fedsim.experiment.scenario import load_scenario  # noqa: PLC0415 - keeps help fast

    def listening(address: str, chosen: int, directory: Path) -> None:
        typer.echo(f"listening on {address}:{chosen} for {clients} clients; record in {directory}", err=True)

    class Rounds:
        """Says when clients are asked."""

        def observe(self, time_s: float, event: str, fields: Mapping[str, object]) -> None:
            del time_s
            if event == "round_closed":
                begun.clear()
            elif event == "dispatched" and not begun:
                begun.append(fields["version"])
                typer.echo(f"asking clients at version {fields['version']}", err=True)

    begun: list[object] = []
    asked = load_scenario(scenario, overrides(assignments or []))
    service = Service(read_token(token_file, make=True), host, port, clients)
    result = asyncio.run(
        serve_scenario(asked, service, out, instruments=[Rounds()], report=report, listening=listening)
    )
    typer.echo("\n".join(closing_lines(result, clock="wall time", took="with start-up")))


def join(
    server: Annotated[str, typer.Argument(metavar="HOST:PORT", help="Where the server listens.")],
    *,
    device: Annotated[str, typer.Option(help="Name of this device in the fleet of the scenario.")],
    token_file: TokenOption,
    scenario: Annotated[
        Path | None, typer.Option(help="Own copy of the scenario, if its model or data are not embedded.")
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(help='What it may use, e.g. "4 GiB".', show_default="as in the fleet"),
    ] = None,
    compute: Annotated[
        str | None,
        typer.Option(help='How fast it trains, e.g. "20 GFLOP/s".', show_default="as in the fleet"),
    ] = None,
    pin: Annotated[
        str | None,
        typer.Option(help="Make training last as the cost model says at this rate.", show_default=False),
    ] = None,
    wait: Annotated[str, typer.Option(help="How long to wait for the server.")] = "30 s",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing on the way.")] = False,
) -> None:
    """Be one client of a real run: load the model, then train what the server asks for."""
    import asyncio  # noqa: PLC0415 - keeps help fast

    from fedsim.deploy.client import Membership  # noqa: PLC0415 - imports torch
    from fedsim.deploy.client import join as join_run  # noqa: PLC0415 - imports torch
    from fedsim.deploy.secret import read_token  # noqa: PLC0415 - keeps help fast
    from fedsim.experiment.scenario import load_scenario  # noqa: PLC0415 - keeps help fast

    def tell(line: str) -> None:
        if not quiet:
            typer.echo(f"{device}: {line}", err=True)

    host, port = _address(server)
    membership = Membership(
        device=device,
        token=read_token(token_file),
        memory_bytes=_read("--memory", memory, "bytes"),
        flops=_read("--compute", compute, "FLOP/s"),
        pin_flops=_read("--pin", pin, "FLOP/s"),
        wait_s=_read("--wait", wait, "seconds") or 0.0,
        scenario=None if scenario is None else load_scenario(scenario),
    )
    done = asyncio.run(join_run(host, port, membership, tell))
    tell(f"ended: {done.reason}")
    typer.echo(
        f"{device}: {done.trained} updates sent, {done.recalled} recalled, {done.failed} failed, "
        f"{done.overruns} longer than pinned"
    )


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise InputError(f"{text}: expected HOST:PORT, for instance 127.0.0.1:7117")
    return host.strip("[]"), int(port)


def _read(option: str, text: str | None, quantity: Quantity) -> float | None:
    if text is None:
        return None
    try:
        value = parse_quantity(text, quantity)
    except ValueError as error:
        raise InputError(f"{option}: {error}") from error
    if value <= 0 and option != "--wait":
        raise InputError(f"{option}: expected more than nothing, got {text}")
    return value
