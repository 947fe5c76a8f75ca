"""``fedsim compare``: run methods side by side under the same seeds, and say who did better by how much."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsim.cli.scenarios import ScenarioArgument, SetOption, overrides
from fedsim.units import format_bytes, format_joules, format_seconds

if TYPE_CHECKING:
    from rich.table import Table

    from fedsim.experiment.compare import Comparison, Row
    from fedsim.experiment.grid import CellEnd

Show = Callable[[float], str]


def _plain(value: float) -> str:
    return f"{value:.4f}"


def _percent(value: float) -> str:
    return f"{100.0 * value:.1f} %"


def _rate(value: float) -> str:
    return f"{value:.1f}"


def _signed(show: Show) -> Show:
    """Show a difference: its sign, then its size."""
    return lambda value: ("-" if value < 0 else "+") + show(abs(value))


# Title of a table -> figure -> title of its column, how it is shown.
TABLES: Mapping[str, Mapping[str, tuple[str, Show]]] = {
    "Quality": {
        "loss_at_time": ("loss, equal time", _plain),
        "loss_at_bytes": ("loss, equal bytes", _plain),
        "loss_final": ("loss, end", _plain),
        "token_accuracy_at_time": ("accuracy, equal time", _plain),
        "token_accuracy_at_bytes": ("accuracy, equal bytes", _plain),
        "token_accuracy_final": ("accuracy, end", _plain),
        "rouge_l_at_time": ("ROUGE-L, equal time", _plain),
        "rouge_l_at_bytes": ("ROUGE-L, equal bytes", _plain),
        "rouge_l_final": ("ROUGE-L, end", _plain),
        "time_to_target": ("time to target", format_seconds),
        "bytes_to_target": ("bytes to target", format_bytes),
    },
    "Cost and participation": {
        "virtual_s": ("virtual time", format_seconds),
        "bytes_down": ("bytes down", format_bytes),
        "bytes_up": ("bytes up", format_bytes),
        "memory_bytes": ("memory per client", format_bytes),
        "device_s": ("device time", format_seconds),
        "updates_per_hour": ("updates per hour", _rate),
        "wasted_bytes": ("wasted bytes", format_bytes),
        "energy_j": ("energy", format_joules),
        "aggregated_share": ("aggregated", _percent),
        "dropped_share": ("dropped", _percent),
        "timed_out_share": ("timed out", _percent),
        "late_share": ("late", _percent),
        "cohort_overlap": ("cohort overlap", _percent),
    },
    "Drift": {
        "absolute_drift": ("absolute", _plain),
        "relative_drift": ("relative", _plain),
        "alignment": ("alignment", _plain),
        "update_norm": ("update norm", _plain),
        "cross_client_drift": ("cross-client", _plain),
        "paper_absolute_drift": ("published: absolute", _plain),
        "paper_relative_drift": ("published: relative", _plain),
        "information_gain_ratio": ("information gain", _plain),
        "reception_error": ("reception error", _plain),
        "effective_rank": ("effective rank", _plain),
    },
}


def compare(
    scenario: ScenarioArgument,
    *,
    methods: Annotated[
        str, typer.Option(help="Methods to compare, e.g. fedhera,fedhera:coupled=true:tail_warmup=0.")
    ],
    seeds: Annotated[str, typer.Option(help="Seeds, e.g. 0-4 or 0,3,7-9.")] = "0",
    workers: Annotated[int, typer.Option(help="Runs at once, each with its scenario's own executor.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder; what is finished in it is kept.", show_default="runs/compare-NAME"),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Whom the others are compared with.", show_default="the first method")
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=A,B,C", help="Compare under each of these values. May be repeated."),
    ] = None,
    target_loss: Annotated[
        float | None,
        typer.Option(help="Loss to be reached.", show_default="the reference's last one"),
    ] = None,
    executor: Annotated[str | None, typer.Option(help="inline, workers, ray or stub.")] = None,
    assignments: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print compare.json instead of tables.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Do not tell how each run ended.")] = False,
    report: Annotated[bool, typer.Option(help="Write comparison.html, which overlays the methods.")] = True,
) -> None:
    """Run methods under the same seeds; compare them at equal time, at equal bytes and at the end."""
    from fedsim.experiment import compare as comparing  # noqa: PLC0415 - keeps help fast
    from fedsim.experiment.scenario import load_scenario  # noqa: PLC0415 - keeps help fast

    shared = overrides(assignments or []) | ({} if executor is None else {"executor.kind": executor})
    name = load_scenario(scenario, shared).name
    request = comparing.Request(
        scenario=scenario,
        methods=methods,
        seeds=seeds,
        out=out or comparing.default_folder(name),
        reference=reference,
        vary=tuple(vary or ()),
        target_loss=target_loss,
        overrides=shared,
        workers=workers,
        report=report,
    )
    checked = comparing.plan(request)
    if not quiet:
        runs = f"{len(checked.cells)} run{'' if len(checked.cells) == 1 else 's'}"
        typer.echo(f"{runs}, {workers} at once, in {request.out}; each is told when it has ended", err=True)
    comparison = comparing.carry_out(checked, _teller(len(checked.cells), quiet=quiet))
    if as_json:
        typer.echo(json.dumps(comparing.as_json(comparison), indent=2, sort_keys=True))
    else:
        _print(comparison)
    if comparison.failed:
        raise typer.Exit(1)


def _teller(count: int, *, quiet: bool) -> "Callable[[CellEnd], None]":
    """Say on stderr how each run ended; where that is not wanted, only of those that failed."""
    told: list[str] = []

    def tell(end: "CellEnd") -> None:
        told.append(end.cell.label)
        if quiet and end.status != "failed":
            return
        took = f" in {end.wall_s:.0f} s" if end.status == "finished" else ""
        reason = f": {end.reason}" if end.reason else ""
        typer.echo(f"[{len(told)}/{count}] {end.cell.label}: {end.status}{took}{reason}", err=True)

    return tell


def _print(comparison: "Comparison") -> None:
    from rich.console import Console  # noqa: PLC0415 - keeps help fast

    wide = None if sys.stdout.isatty() else 30 + 24 * len({row.method for row in comparison.rows})
    console = Console(soft_wrap=True, highlight=False, width=wide)
    for sweep in _sweeps(comparison.rows):
        rows = [row for row in comparison.rows if row.sweep == sweep]
        varied = "".join(f", {key} = {value}" for key, value in sweep.items())
        for title, figures in TABLES.items():
            known = {
                name: figure for name, figure in figures.items() if any(row.figure == name for row in rows)
            }
            if known:
                console.print(table(f"{title}{varied}", known, rows, comparison.reference))
    for note in comparison.notes:
        console.print(f"note: {note}", markup=False)
    console.print(
        f"mean over n runs; below it the difference to {comparison.reference} over runs of the same seed and "
        "the half width of its 95 % interval",
        markup=False,
    )
    page = " (open comparison.html)" if comparison.request.report else ""
    console.print(f"written to {comparison.request.out}{page}", markup=False)


def _sweeps(rows: "Sequence[Row]") -> list[Mapping[str, str]]:
    return [dict(sweep) for sweep in dict.fromkeys(tuple(row.sweep.items()) for row in rows)]


def table(
    title: str, figures: Mapping[str, tuple[str, Show]], rows: "Sequence[Row]", reference: str
) -> "Table":
    """Lay out figures: one line per figure, one column per method.

    Args:
        title: Above the table.
        figures: Figure -> title, how it is shown.
        rows: Of one setting of what is varied.
        reference: Method without differences.
    """
    from rich.table import Table  # noqa: PLC0415 - keeps help fast
    from rich.text import Text  # noqa: PLC0415 - keeps help fast

    found = {(row.figure, row.method): row for row in rows}
    methods = list(dict.fromkeys(row.method for row in rows))
    result = Table(title=Text(title), title_justify="left")
    result.add_column("")
    for method in methods:
        result.add_column(Text(method), justify="right", overflow="fold")
    for name, (label, show) in figures.items():
        cells = [cell(found.get((name, method)), show, reference) for method in methods]
        result.add_row(label, *(Text(text) for text in cells))
    return result


def cell(row: "Row | None", show: Show, reference: str) -> str:
    """Show a mean with its number of runs, and the paired difference below it."""
    if row is None:
        return "-"
    text = f"{show(row.mean)} (n={row.n})"
    if row.method == reference or row.difference is None:
        return text
    width = "" if row.half_width is None else f" ± {show(row.half_width)}"
    return f"{text}\n{_signed(show)(row.difference)}{width}"
