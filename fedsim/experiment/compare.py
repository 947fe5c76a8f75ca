"""Which method does better on this fleet, by how much, and how sure is that? A grid of runs, paired by seed.

Runs under one seed see the same fleet, the same traces and the same streams, and their cohorts overlap as far
as durations allow. So methods are compared by the differences within seeds, which vary far less than the
methods do between seeds.
"""

import csv
import io
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from fedsim.errors import ScenarioError
from fedsim.experiment.grid import (
    Cell,
    CellEnd,
    Variant,
    locked,
    make_cells,
    parse_methods,
    parse_seeds,
    parse_vary,
    run_cells,
    slug,
)
from fedsim.experiment.outcome import QUALITIES, RunOutcome, equal_end, read_outcome
from fedsim.experiment.paired import LEVEL, cohort_overlap, interval
from fedsim.experiment.record import write_json

TABLE = "compare.csv"
REPORT = "compare.json"
AXES = ("time", "bytes")


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be compared.

    Args:
        scenario: Scenario file.
        methods: Words of ``--methods``.
        seeds: Word of ``--seeds``.
        out: Folder of the comparison.
        reference: Label that the others are compared with; the first method where None.
        vary: Words of ``--vary``.
        target_loss: Loss to be reached; the reference's last one under the same seed where None.
        overrides: Dotted key -> YAML text, for every run.
        workers: Runs at once.
        report: Whether the page that overlays the methods is written.
    """

    scenario: Path
    methods: str
    seeds: str
    out: Path
    reference: str | None = None
    vary: tuple[str, ...] = ()
    target_loss: float | None = None
    overrides: Mapping[str, str] | None = None
    workers: int = 1
    report: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of one method.

    Args:
        sweep: Varied key -> value.
        method: Label.
        figure: Name.
        n: Runs that have the figure.
        mean: Over them.
        pairs: Seeds under which both this method and the reference have it.
        difference: Mean over the pairs of this method minus the reference.
        half_width: Of the interval around it; None for fewer than two pairs.
        values: Seed -> value.
    """

    sweep: Mapping[str, str]
    method: str
    figure: str
    n: int
    mean: float
    pairs: int
    difference: float | None
    half_width: float | None
    values: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of a comparison.

    Args:
        request: What was asked for.
        reference: Label of the method that the others are compared with.
        ends: How each cell ended.
        rows: The table.
        notes: What a reader must know before trusting it.
    """

    request: Request
    reference: str
    ends: tuple[CellEnd, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    @property
    def failed(self) -> tuple[CellEnd, ...]:
        """Cells without a result."""
        return tuple(end for end in self.ends if end.status == "failed")


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked comparison that has not begun."""

    request: Request
    reference: str
    cells: tuple[Cell, ...]


def plan(request: Request) -> Plan:
    """Check a request and resolve every cell; touches no file.

    Raises:
        InputError: If any part of it is wrong.
    """
    if request.workers < 1:
        raise ScenarioError(f"--workers {request.workers}: expected at least 1")
    if request.target_loss is not None and not 0.0 < request.target_loss < math.inf:
        raise ScenarioError(f"--target-loss {request.target_loss:g}: expected a finite number above 0")
    variants = parse_methods(request.methods)
    seeds, sweeps = parse_seeds(request.seeds), parse_vary(request.vary)
    labels = [variant.label for variant in variants]
    reference = request.reference or labels[0]
    if reference not in labels:
        raise ScenarioError(f"--reference {reference}: expected one of {', '.join(labels)}")
    shared = dict(request.overrides or {})
    clash = next((key for key in ("seed", "method.name") if key in shared), None)
    if clash is not None:
        raise ScenarioError(f"--set {clash}: use --seeds and --methods")
    cells = make_cells(request.scenario, request.out, variants, seeds, sweeps, shared)
    _check_worlds(cells)
    _check_methods(cells)
    return Plan(request, reference, cells)


def _check_worlds(cells: Sequence[Cell]) -> None:
    """Read the fleet of one cell per setting, so that a wrong trace is told before anything runs."""
    from fedsim.experiment.fleet import build_population  # noqa: PLC0415 - imports pandas

    for cell in {cell.sweep: cell for cell in reversed(cells)}.values():
        build_population(cell.scenario)


def _check_methods(cells: Sequence[Cell]) -> None:
    """Build every method once, so that a wrong option is told before anything runs."""
    from fedsim.experiment.methods import method_of  # noqa: PLC0415 - imports torch

    for cell in {(cell.variant, cell.sweep): cell for cell in reversed(cells)}.values():
        method_of(cell.scenario)


def carry_out(checked: Plan, tell: Callable[[CellEnd], None]) -> Comparison:
    """Run what is not finished, read everything, write the table.

    Args:
        checked: From `plan`.
        tell: Hears of each end as it comes.

    Raises:
        InputError: If the folder of the comparison cannot be used.
    """
    request = checked.request
    with locked(request.out):
        ends = run_cells(request.scenario, checked.cells, request.workers, tell)
        outcomes = {
            end.cell.directory: read_outcome(end.cell.directory) for end in ends if end.status != "failed"
        }
        rows = tabulate(checked, outcomes)
        comparison = Comparison(request, checked.reference, tuple(ends), rows, notes(checked, ends, outcomes))
        write_json(request.out / REPORT, as_json(comparison))
        _write_table(request.out / TABLE, comparison)
        if request.report:
            _write_pages(comparison)
    return comparison


# --- statistics -----------------------------------------------------------------------------------------


def tabulate(checked: Plan, outcomes: Mapping[Path, RunOutcome]) -> tuple[Row, ...]:
    """Put all figures of all methods into rows.

    Args:
        checked: The plan.
        outcomes: Folder of a cell -> what it says; failed cells are missing.
    """
    rows: list[Row] = []
    for sweep in dict.fromkeys(cell.sweep for cell in checked.cells):
        cells = [cell for cell in checked.cells if cell.sweep == sweep and cell.directory in outcomes]
        found: dict[Variant, dict[int, dict[str, float]]] = {cell.variant: {} for cell in cells}
        for seed in dict.fromkeys(cell.seed for cell in cells):
            runs = {cell.variant: outcomes[cell.directory] for cell in cells if cell.seed == seed}
            for variant, figures in paired_figures(runs, checked).items():
                found[variant][seed] = figures
        base = next((values for variant, values in found.items() if variant.label == checked.reference), {})
        for variant, by_seed in found.items():
            rows += _rows(dict(sweep), variant.label, by_seed, base)
    return tuple(rows)


def paired_figures(runs: Mapping[Variant, RunOutcome], checked: Plan) -> dict[Variant, dict[str, float]]:
    """Return the figures of runs under one seed: their own, and those at places that all have reached.

    Args:
        runs: Method -> what its run says.
        checked: The plan.
    """
    curves = [run.curve for run in runs.values()]
    places = {axis: equal_end(curves, axis) for axis in AXES}
    reference = next((run for variant, run in runs.items() if variant.label == checked.reference), None)
    target = checked.request.target_loss
    if target is None and reference is not None:
        target = reference.curve.final("loss")
    result = {}
    for variant, run in runs.items():
        figures: dict[str, float | None] = dict(run.figures)
        for axis, place in places.items():
            for quality in QUALITIES:
                figures[f"{quality}_at_{axis}"] = (
                    None if place is None else run.curve.at(quality, axis, place)
                )
            figures[f"{axis}_to_target"] = None if target is None else run.curve.reached("loss", target, axis)
        figures["cohort_overlap"] = None if reference is None else cohort_overlap(run.asked, reference.asked)
        result[variant] = {name: value for name, value in figures.items() if value is not None}
    return result


def _rows(
    sweep: Mapping[str, str],
    method: str,
    by_seed: Mapping[int, Mapping[str, float]],
    reference: Mapping[int, Mapping[str, float]],
) -> list[Row]:
    names = dict.fromkeys(name for figures in by_seed.values() for name in figures)
    rows = []
    for name in names:
        values = {seed: figures[name] for seed, figures in by_seed.items() if name in figures}
        differences = [
            value - reference[seed][name] for seed, value in values.items() if name in reference.get(seed, {})
        ]
        difference, half_width = interval(differences)
        rows.append(
            Row(
                sweep, method, name, len(values), fmean(values.values()),
                len(differences), difference, half_width, values,
            )
        )  # fmt: skip
    return rows


def notes(checked: Plan, ends: Sequence[CellEnd], outcomes: Mapping[Path, RunOutcome]) -> tuple[str, ...]:
    """Say what a reader must know before trusting the table."""
    manifests = [outcome.manifest for outcome in outcomes.values()]
    found = [f"{end.cell.label}: failed: {end.reason}" for end in ends if end.status == "failed"]
    found += dict.fromkeys(str(caveat) for each in manifests for caveat in each["caveats"])
    if len({_frozen(each["traces"]) for each in manifests}) > len({cell.sweep for cell in checked.cells}):
        found.append("The trace files changed between runs, so runs of one seed did not see the same world.")
    if len({_frozen({**each["versions"], "cpu": each["cpu_capability"]}) for each in manifests}) > 1:
        found.append("Runs come from different package versions or processors; see their manifests.")
    if len({cell.seed for cell in checked.cells}) < 2:
        found.append("One seed: differences have no interval.")
    if checked.request.target_loss is None:
        found.append(f"The target is the last loss of {checked.reference} under the same seed.")
    return tuple(found)


def _frozen(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, str(value)) for key, value in values.items()))


# --- files ----------------------------------------------------------------------------------------------


def as_json(comparison: Comparison) -> dict[str, object]:
    """Return what `compare.json` says."""
    request = comparison.request
    return {
        "scenario": str(request.scenario),
        "methods": list(dict.fromkeys(end.cell.variant.label for end in comparison.ends)),
        "seeds": list(dict.fromkeys(end.cell.seed for end in comparison.ends)),
        "reference": comparison.reference,
        "vary": list(request.vary),
        "overrides": dict(request.overrides or {}),
        "target_loss": request.target_loss,
        "level": LEVEL,
        "notes": list(comparison.notes),
        "cells": [
            {
                "method": end.cell.variant.label,
                "seed": end.cell.seed,
                "sweep": dict(end.cell.sweep),
                "directory": os.path.relpath(end.cell.directory, request.out),
                "status": "failed" if end.status == "failed" else "finished",
                "reason": end.reason,
            }
            for end in comparison.ends
        ],
        "rows": [
            {**asdict(row), "values": {str(seed): value for seed, value in row.values.items()}}
            for row in comparison.rows
        ],
    }


def _write_pages(comparison: Comparison) -> None:
    """Write one page per setting of what is varied, the reference first."""
    from fedsim.experiment.report.comparison import write_comparison  # noqa: PLC0415 - draws, so it is slow

    whole = [end.cell for end in comparison.ends if end.status != "failed"]
    for sweep in dict.fromkeys(cell.sweep for cell in whole):
        cells = [cell for cell in whole if cell.sweep == sweep]
        labels = dict.fromkeys(cell.variant.label for cell in cells)
        ordered = sorted(labels, key=lambda label: label != comparison.reference)
        folder = comparison.request.out / slug([f"{key}={value}" for key, value in sweep])
        write_comparison(
            folder,
            {label: [cell.directory for cell in cells if cell.variant.label == label] for label in ordered},
        )


def _write_table(path: Path, comparison: Comparison) -> None:
    """Write one line per figure and method; the file appears whole or not at all."""
    keys = list(dict.fromkeys(key for row in comparison.rows for key in row.sweep))
    columns = [*keys, "method", "figure", "n", "mean", "reference", "pairs", "difference", "low", "high"]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    for row in comparison.rows:
        low, high = bounds(row)
        varied = [row.sweep.get(key, "") for key in keys]
        writer.writerow(
            [*varied, row.method, row.figure, row.n, row.mean, comparison.reference, row.pairs,
             row.difference, low, high]
        )  # fmt: skip
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text.getvalue(), encoding="utf-8", newline="")
    temporary.replace(path)


def bounds(row: Row) -> tuple[float | None, float | None]:
    """Both ends of the interval of a difference."""
    if row.difference is None or row.half_width is None:
        return None, None
    return row.difference - row.half_width, row.difference + row.half_width


def default_folder(name: str) -> Path:
    """Where a comparison lies if nothing is said: the same place each time, so that it goes on."""
    return Path("runs") / f"compare-{name}"
