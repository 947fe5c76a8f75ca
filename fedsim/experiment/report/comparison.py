"""How do methods compare? Runs of several methods and seeds on one page: bands, tables, pairs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from fedsim.errors import InputError
from fedsim.experiment.load import Run, load_run
from fedsim.experiment.report import tables
from fedsim.experiment.report.bands import band_figures, grouped_bars, rank_figure
from fedsim.experiment.report.compared import compared_section
from fedsim.experiment.report.learning import last_value, metric_names
from fedsim.experiment.report.page import Section, figures_html, list_html, page_html, table_html, text
from fedsim.experiment.report.pairs import paired_table
from fedsim.experiment.report.run_page import priced_caveat
from fedsim.experiment.report.write import replace_file
from fedsim.units import format_bytes, format_seconds

COMPARISON = "comparison.html"
OPTIONAL = ("privacy", "faults")
BAND_NOTE = (
    "Thin lines are single seeds, thick lines their mean, the band goes from the lowest to the highest seed. "
    "Means are taken where every seed has values."
)


@dataclass(frozen=True, slots=True, eq=False)
class Arm:
    """The runs of one method.

    Args:
        label: Its name on the page.
        runs: One per seed.
    """

    label: str
    runs: tuple[Run, ...]


def write_comparison(directory: Path | str, runs: Mapping[str, Sequence[Path]]) -> Path:
    """Write one page that overlays methods, with bands over seeds.

    Args:
        directory: Where ``comparison.html`` is written; made if it is not there.
        runs: Label of a method -> directories of its runs, one per seed. Differences are told against the
            first label.

    Returns:
        The path of the page.

    Raises:
        InputError: If there is nothing to compare, or a directory is not a run.
    """
    arms = [Arm(label, tuple(load_run(path) for path in paths)) for label, paths in runs.items() if paths]
    if not arms:
        raise InputError("comparison: expected at least one method with at least one run, found none")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    return replace_file(directory / COMPARISON, comparison_page(arms))


def comparison_page(arms: Sequence[Arm]) -> str:
    """Return the page."""
    names = [arm.label for arm in arms]
    seeds = sorted({str(run.manifest.get("seed")) for arm in arms for run in arm.runs})
    scenario = arms[0].runs[0].manifest.get("scenario", {}).get("name", "")
    budgets = compared_section({arm.label: arm.runs for arm in arms})
    sections = [_summary(arms), _learning(arms), budgets, _fleet(arms), _provenance(arms)]
    lead = f"{len(names)} methods · seeds {', '.join(seeds)} · {sum(len(arm.runs) for arm in arms)} runs"
    return page_html(f"{scenario}: {', '.join(names)}", lead, _banner(arms), sections)


def _banner(arms: Sequence[Arm]) -> str:
    parts = []
    if stubs := [arm.label for arm in arms if any(run.is_stub for run in arm.runs)]:
        parts.append(
            f'<div class="stub" role="alert"><strong>STUB</strong> Nothing was trained in runs of '
            f"{text(', '.join(stubs))}: they have no losses.</div>"
        )
    if torn := [arm.label for arm in arms if any(run.reason is None for run in arm.runs)]:
        parts.append(
            f'<div class="torn" role="alert">Not all runs have ended: {text(", ".join(torn))}. What follows '
            "is their record so far.</div>"
        )
    return "".join(parts)


def _caveat(arms: Sequence[Arm]) -> str:
    return next(filter(None, (priced_caveat(run.manifest) for arm in arms for run in arm.runs)), "")


def _summary(arms: Sequence[Arm]) -> Section:
    caveats = dict.fromkeys(
        str(caveat) for arm in arms for run in arm.runs for caveat in run.manifest.get("caveats", [])
    )
    remarks = [*caveats, *_differences(arms)]
    body = list_html(remarks, "caveats") if remarks else ""
    body += table_html(
        _overview(arms), "Mean over seeds, with the standard deviation where there are several"
    )
    pairs = paired_table(arms[0].runs, {arm.label: arm.runs for arm in arms[1:]})
    if len(pairs):
        body += table_html(
            pairs,
            f"Difference from {arms[0].label}: same seeds only, last version measured, 95 % Student interval",
        )
    return Section("summary", "Summary", body)


def _overview(arms: Sequence[Arm]) -> pd.DataFrame:
    rows = []
    for arm in arms:
        row: dict[str, object] = {"method": arm.label, "seeds": len(arm.runs)}
        for name in metric_names(arm.runs[0]):
            last = [value for run in arm.runs if (value := last_value(run, name)) is not None]
            row[name] = _spread(last)
        table = [run.assignments for run in arm.runs]
        row |= {
            "virtual time": format_seconds(fmean(run.end_s for run in arm.runs)),
            "bytes": fmean(float(part["bytes_down"].sum() + part["bytes_up"].sum()) for part in table),
            "memory per client": _memory(arm.runs),
            "device time": format_seconds(fmean(_device_seconds(part) for part in table)),
            "aggregated": _spread([float((part["outcome"] == "aggregated").sum()) for part in table]),
            "wasted": format_bytes(fmean(float(tables.waste(run)["bytes"].sum()) for run in arm.runs)),
            "devices that contributed": _spread(
                [float(tables.participation(run)["contributed"].sum()) for run in arm.runs]
            ),
            "Gini": _spread([g for run in arm.runs if (g := tables.gini(tables.updates_per_device(run)))]),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def _device_seconds(assignments: pd.DataFrame) -> float:
    """Downloads, training and uploads of all clients together."""
    phases = assignments[["download_s", "train_s", "upload_s"]]
    return float(phases.apply(pd.to_numeric).fillna(0.0).to_numpy().sum())


def _memory(runs: Sequence[Run]) -> str:
    """Mean over assignments of what a plan takes, frozen base and activations included."""
    used = [(run.summary or {}).get("utilisation") or {} for run in runs]
    known = [float(mean) for each in used if (mean := each.get("mean_memory_bytes")) is not None]
    return format_bytes(fmean(known)) if known else "not measured"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "not measured"
    return f"{fmean(values):.4g}" if len(values) < 2 else f"{fmean(values):.4g} ± {stdev(values):.2g}"


def _differences(arms: Sequence[Arm]) -> list[str]:
    """Say where scenarios differ in more than method and seed: then not only the method is compared."""
    told: dict[str, set[str]] = {}
    for arm in arms:
        for run in arm.runs:
            for section, values in run.manifest.get("scenario", {}).items():
                if section not in ("method", "seed", "name", "description"):
                    for key, value in _inner(section, values):
                        told.setdefault(key, set()).add(_comparable(value))
    differ = sorted(key for key, values in told.items() if len(values) > 1)
    return [f"The scenarios also differ in: {', '.join(differ)}."] if differ else []


def _inner(section: str, values: Any) -> Iterator[tuple[str, Any]]:
    """Yield the keys of a section; one that a scenario may lack is compared as a whole."""
    if section in OPTIONAL or not isinstance(values, Mapping):
        yield section, values
    else:
        yield from ((f"{section}.{key}", value) for key, value in values.items())


def _comparable(value: object) -> str:
    """Two files of one name may be the same in two places; their hashes stand in the provenance."""
    told = Path(value).name if isinstance(value, str) and "/" in value else value
    return json.dumps(told, sort_keys=True)


def _learning(arms: Sequence[Arm]) -> Section:
    groups = {arm.label: arm.runs for arm in arms}
    figures = [*band_figures(groups), rank_figure(groups)]
    body = f"<p>{text(BAND_NOTE)}</p>" + figures_html(figures, _caveat(arms))
    return Section("learning", "Quality over time and bytes", body, figures)


def _fleet(arms: Sequence[Arm]) -> Section:
    updates = {
        arm.label: _mean_table(
            [tables.participation(run).set_index("class")["aggregated"] for run in arm.runs]
        )
        for arm in arms
    }
    lost = {
        arm.label: _mean_table([tables.waste(run).set_index("cause")["bytes"] / 1e9 for run in arm.runs])
        for arm in arms
    }
    figures = [
        grouped_bars("updates", "Aggregated updates by class, mean over seeds", "updates", updates),
        grouped_bars("waste", "GB that led to nothing by cause, mean over seeds", "GB", lost, priced=True),
    ]
    return Section("fleet", "Fleet and waste", figures_html(figures, _caveat(arms)), figures)


def _mean_table(parts: Sequence[pd.Series]) -> pd.Series:
    return pd.concat(parts, axis=1).fillna(0.0).astype(float).mean(axis=1)


def _provenance(arms: Sequence[Arm]) -> Section:
    rows = [
        {
            "method": arm.label,
            "seed": run.manifest.get("seed"),
            "executor": run.manifest.get("executor"),
            "record": run.directory.name,
            "ended": run.reason or "not ended",
            "scenario sha256": str(run.manifest.get("scenario_sha256", ""))[:16],
            "fedsim": run.manifest.get("versions", {}).get("fedsim-lora"),
            "torch": run.manifest.get("versions", {}).get("torch"),
        }
        for arm in arms
        for run in arm.runs
    ]
    body = table_html(pd.DataFrame(rows), "Runs", words=True)
    facts = {
        (Path(path).name, str(_source(run, path).get("licence") or "not stated"), sha256)
        for arm in arms
        for run in arm.runs
        for path, sha256 in run.manifest.get("traces", {}).items()
    }
    traces = pd.DataFrame(sorted(facts), columns=["trace", "licence", "sha256"])
    return Section("provenance", "Runs and provenance", body + table_html(traces, "Traces", words=True))


def _source(run: Run, path: str) -> Mapping[str, object]:
    """What the sidecar of a trace says of it."""
    found: Mapping[str, object] = run.manifest.get("trace_sources", {}).get(path, {})
    return found
