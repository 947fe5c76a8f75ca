"""``fedsim check --preview``: what the fleet will do, and how long a run will take, in words or as JSON."""

import asyncio
import json
from collections import Counter
from dataclasses import asdict

import pandas as pd

from fedsim.cli.speech import aligned
from fedsim.experiment.preview import Preview, preview
from fedsim.experiment.report import tables
from fedsim.experiment.report.sentences import reason_in_words
from fedsim.experiment.scenario import Scenario
from fedsim.units import format_bytes, format_seconds

COLUMNS = (
    "class",
    "devices",
    "asked",
    "aggregated",
    "dropped",
    "timed out",
    "late",
    "other",
    "received",
    "trained",
)


def told(dry: Scenario, real: Scenario, *, as_json: bool) -> str:
    """Preview a scenario, and tell of it.

    Args:
        dry: With the stub executor.
        real: With its own.
        as_json: For programs.
    """
    found = asyncio.run(preview(dry, real))
    return json.dumps(figures(found), indent=2) if as_json else "\n".join(lines(found))


def figures(found: Preview) -> dict[str, object]:
    """Return what a preview says, as JSON values."""
    run = found.run
    return {
        "ends": run.reason,
        "virtual_s": run.end_s,
        "online": [int(count) for count in run.fleet["online"]],
        "outcomes": dict(Counter(tables.outcomes(run))),
        "bytes_down": int(run.assignments["bytes_down"].sum()),
        "bytes_up": int(run.assignments["bytes_up"].sum()),
        "by_class": [dict(zip(COLUMNS, row, strict=True)) for row in _classes(found)],
        "work": asdict(found.work),
        "measured": None if found.measured is None else asdict(found.measured),
        "workers": found.workers,
        "wall_s": found.wall_s,
    }


def lines(found: Preview) -> list[str]:
    """Say what the fleet will do, then how long it takes to train that."""
    run = found.run
    down, up = run.assignments["bytes_down"].sum(), run.assignments["bytes_up"].sum()
    counts = Counter(tables.outcomes(run))
    said = {
        "ends": f"{run.reason}, after {format_seconds(run.end_s)} of virtual time",
        "online": _online(found),
        "assignments": ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none",
        "refused": _refused(found),
        "bytes": f"{format_bytes(float(down))} down, {format_bytes(float(up))} up",
    }
    return [
        "what the fleet will do (dry run: nothing was trained; a real spectrum shifts ranks a little)",
        *(f"  {name:<12} {words}" for name, words in said.items()),
        "",
        *(f"  {line}" for line in aligned([COLUMNS, *_shown(found)])),
        "  received, trained: mean rank over layers and assignments",
        "",
        *_duration(found),
    ]


def _online(found: Preview) -> str:
    seen, devices = found.run.fleet["online"], found.run.manifest["num_devices"]
    if seen.empty:
        return f"nobody was ever seen of {devices} devices"
    return (
        f"{seen.min()} to {seen.max()} of {devices} devices whenever the server looked, "
        f"median {seen.median():.0f}"
    )


def _refused(found: Preview) -> str:
    parts = [
        f"{row['devices']} {row['device_class']} ({reason_in_words(row['reason'])})"
        for _, row in tables.declines(found.run).iterrows()
    ]
    return ", ".join(parts) or "nobody"


def _shown(found: Preview) -> list[tuple[str, ...]]:
    return [tuple("-" if cell is None else str(cell) for cell in row) for row in _classes(found)]


def _classes(found: Preview) -> list[tuple[object, ...]]:
    table = found.run.assignments
    rows: list[tuple[object, ...]] = []
    for _, seen in tables.participation(found.run).iterrows():
        mine = table[table["device_class"] == seen["class"]]
        ends = Counter(mine["outcome"].dropna())
        counts = [ends[name] for name in ("aggregated", "dropped", "timed_out", "late")]
        ranks = [_mean(mine["mean_total"]), _mean(mine["mean_trained"])]
        other = len(mine) - sum(counts)
        rows.append((str(seen["class"]), int(seen["devices"]), len(mine), *counts, other, *ranks))
    return rows


def _mean(values: pd.Series) -> float | None:
    known = pd.to_numeric(values).dropna()
    return None if known.empty else round(float(known.mean()), 1)


def _duration(found: Preview) -> list[str]:
    work, took = found.work, found.measured
    if took is None or found.wall_s is None:
        return ["how long it takes: seconds, for this scenario trains nothing"]
    extra = f" and {work.oracles} to measure drift" if work.oracles else ""
    spread = f", spread over {found.workers} processes as if each had a core" if found.workers > 1 else ""
    return [
        f"how long it takes: about {_rounded(found.wall_s)} on this machine",
        f"  {work.updates} updates{extra} of {work.steps} steps{spread}:",
        f"    {took.update_s:.2f} s each and {took.step_s:.3f} s a step, measured on {took.sampled} of them",
        f"  {work.aggregations} aggregations of {took.aggregation_s:.2f} s each",
        f"  {work.evaluations} evaluations of {took.evaluation_s:.1f} s each",
        f"  {took.build_s:.1f} s to begin",
        f"  meanwhile this process had {took.core_share:.0%} of a core; other work on this machine changes",
        "  it, and so do the longer answers of a better model: take it as a magnitude",
    ]


def _rounded(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
