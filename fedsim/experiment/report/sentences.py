"""What happened in a run, in words? A few sentences for people in a hurry."""

import numpy as np

from fedsim.experiment.load import Run
from fedsim.experiment.report import tables
from fedsim.units import format_bytes, format_joules, format_seconds

MAX_KINDS = 12
REASONS = {
    "infeasible: base": "cannot hold the base model",
    "infeasible: memory": "too little memory to train one column",
    "infeasible: time": "too slow for the deadline",
    "infeasible: no column": "no column fits its budgets",
}


def reason_in_words(code: str) -> str:
    """Say why a device was refused."""
    return REASONS.get(code, code)


def sentences(run: Run) -> list[str]:
    """Say what happened: who took part and who did not, what was lost, how fair and how fast it was."""
    seen, said = tables.participation(run), []
    if len(seen):
        reached = seen[seen["aggregated"] > 0].sort_values("aggregated", ascending=False)
        said.append(
            "Updates came from: "
            + (", ".join(f"{row['class']} {row['aggregated']}" for _, row in reached.iterrows()) or "nobody")
            + "."
        )
        silent = [str(name) for name in seen[seen["contributed"] == 0]["class"]]
        if silent:
            said.append(f"No update was aggregated from: {', '.join(silent)}.")
    said += _energy(run) + _losses(run) + _refusals(run) + _fairness(run) + _rounds(run)
    return said


def _energy(run: Run) -> list[str]:
    spent = tables.energy_by_class(run)
    if spent.empty:
        return []
    whole_j, lost_j = 3600.0 * spent.to_numpy().sum(), 3600.0 * spent["lost"].sum()
    return [f"Devices spent {format_joules(whole_j)}, of which {format_joules(lost_j)} led to nothing."]


def _losses(run: Run) -> list[str]:
    lost = tables.waste(run)
    if lost.empty:
        return ["Nothing that was dispatched was lost."]
    causes = ", ".join(f"{row['cause'].replace('_', ' ')} {row['assignments']}" for _, row in lost.iterrows())
    told = (
        f"Work that led to nothing: {causes}; together {format_bytes(lost['bytes'].sum())} and "
        f"{lost['device_hours'].sum():.1f} device-hours."
    )
    return [told]


def _refusals(run: Run) -> list[str]:
    refused = tables.declines(run)
    if refused.empty:
        return ["No device was refused."]
    parts = [
        f"{row['devices']} {row['device_class']} ({reason_in_words(row['reason'])})"
        for _, row in refused.iterrows()
    ]
    more = f", and {len(parts) - MAX_KINDS} more kinds" if len(parts) > MAX_KINDS else ""
    return [f"Devices refused before any work: {', '.join(parts[:MAX_KINDS])}{more}."]


def _fairness(run: Run) -> list[str]:
    counts = tables.updates_per_device(run)
    spread = tables.gini(counts)
    if spread is None:
        return []
    never = run.manifest.get("num_devices", len(counts)) - run.assignments["client"].nunique()
    told = (
        f"{never} of {len(counts)} devices were never given work. The Gini coefficient of aggregated updates "
        f"per device is {spread:.2f} (0: all the same; near 1: a few gave everything)."
    )
    return [told]


def _rounds(run: Run) -> list[str]:
    if len(run.rounds) < 2:
        return []
    times = np.diff(np.concatenate([[0.0], run.rounds["time_s"].to_numpy(dtype=float)]))
    skipped = int((run.rounds["result"] != "aggregated").sum())
    tail = f" {skipped} left the model as it was." if skipped else ""
    told = (
        f"{len(times)} rounds or versions; the median took {format_seconds(float(np.median(times)))} of "
        f"virtual time, the longest {format_seconds(float(times.max()))}.{tail}"
    )
    return [told]
