"""``fedsim sensitivity``: compare methods again in slightly different worlds."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsim.cli.scenarios import ScenarioArgument, SetOption, overrides

if TYPE_CHECKING:
    from fedsim.experiment.grid import CellEnd


def sensitivity(
    scenario: ScenarioArgument,
    *,
    methods: Annotated[str, typer.Option(help="Methods to compare, as for compare.")],
    perturb: Annotated[
        list[str],
        typer.Option(
            metavar="KIND=VALUES",
            help="bandwidth=0.5,2 | compute=0.5,2 | availability=shift:6h | trace=resample. Repeat it.",
        ),
    ],
    seeds: Annotated[str, typer.Option(help="Seeds, e.g. 0-4.")] = "0",
    figure: Annotated[
        str | None, typer.Option(help="Figure to rank by.", show_default="loss_at_time, or virtual_s")
    ] = None,
    workers: Annotated[int, typer.Option(help="Runs at once, each with its scenario's own executor.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder; what is finished in it is kept.", show_default="runs/sensitivity-NAME"),
    ] = None,
    executor: Annotated[str | None, typer.Option(help="inline, workers, ray or stub.")] = None,
    assignments: SetOption = None,
) -> None:
    """Say whether the ranking of methods survives small changes of the world, and which change turns it."""
    from fedsim.experiment import sensitivity as asking  # noqa: PLC0415 - keeps help fast
    from fedsim.experiment.compare import Request  # noqa: PLC0415 - keeps help fast
    from fedsim.experiment.scenario import load_scenario  # noqa: PLC0415 - keeps help fast

    def tell(change: str, end: "CellEnd") -> None:
        reason = f": {end.reason}" if end.reason else ""
        typer.echo(f"{change}: {end.cell.label}: {end.status}{reason}", err=True)

    shared = overrides(assignments or []) | ({} if executor is None else {"executor.kind": executor})
    name = load_scenario(scenario, shared).name
    folder = out or Path("runs") / f"sensitivity-{name}"
    request = Request(scenario, methods, seeds, folder, overrides=shared, workers=workers)
    found = asking.sensitivity(request, perturb, figure, tell)
    shown = {"kendall": _correlation, "spearman": _correlation}
    typer.echo(asking.table(found).to_string(index=False, formatters=shown, float_format="{:.6g}".format))
    typer.echo("\n".join(asking.sentences(found)))
    typer.echo(f"written to {folder}")


def _correlation(value: float | None) -> str:
    """Show a rank correlation; a dash where one side has no order."""
    return "-" if value is None or math.isnan(value) else f"{value:.2f}"
