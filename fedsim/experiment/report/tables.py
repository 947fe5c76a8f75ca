"""What do the tables of a run say? Phases, participation, fairness, waste, time: functions of a `Run`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from fedsim.experiment.load import Run

PHASES = ("download", "train", "upload", "waiting")
_INSTANTS = ("dispatched_at_s", "downloaded_at_s", "trained_at_s", "uploaded_at_s", "settled_at_s")


def phases(run: Run) -> pd.DataFrame:
    """Return one row per phase of each assignment: where it began, ended, and whether it was cut.

    A phase that was cut lasts until the assignment was settled; one that is under way, until the last line of
    the record. ``waiting`` is an update that lies at the server.
    """
    table = run.assignments
    rows = []
    for phase, began, ended in zip(PHASES, _INSTANTS, _INSTANTS[1:], strict=False):
        starts = pd.to_numeric(table[began])
        whole = pd.to_numeric(table[ended])
        settled = pd.to_numeric(table["settled_at_s"]).fillna(run.end_s)
        part = pd.DataFrame(
            {
                "assignment": table["assignment"],
                "client": table["client"],
                "device": table["device"],
                "device_class": table["device_class"],
                "outcome": table["outcome"],
                "phase": phase,
                "start_s": starts,
                "end_s": whole.fillna(settled),
                "cut": whole.isna(),
            }
        )
        rows.append(part[starts.notna()])
    joined = pd.concat(rows, ignore_index=True)
    joined["duration_s"] = (joined["end_s"] - joined["start_s"]).clip(lower=0.0)
    return joined


def work_s(run: Run) -> pd.Series:
    """Device-seconds of transfers and training per assignment, in the order of `Run.assignments`."""
    spans = phases(run)
    busy = spans[spans["phase"] != "waiting"].groupby("assignment")["duration_s"].sum()
    return run.assignments["assignment"].map(busy).fillna(0.0)


def outcomes(run: Run) -> pd.Series:
    """How assignments ended, drops by phase; those that have not ended are ``in flight``."""
    table = run.assignments
    told = [
        "in flight" if pd.isna(outcome) else f"{outcome}: {phase}" if outcome == "dropped" else str(outcome)
        for outcome, phase in zip(table["outcome"], table["phase"], strict=True)
    ]
    return pd.Series(told, index=table.index, dtype=object)


def device_classes(run: Run) -> list[str]:
    """Every class of the fleet, as far as the record knows it."""
    known = set(run.manifest.get("devices_by_class", {}))
    return sorted(known | set(run.assignments["device_class"]) | set(run.declines["device_class"]))


def participation(run: Run) -> pd.DataFrame:
    """Return one row per class: how many devices there are, were reached, contributed, were refused."""
    sizes = run.manifest.get("devices_by_class", {})
    table, rows = run.assignments, []
    for name in device_classes(run):
        mine = table[table["device_class"] == name]
        done = mine[mine["outcome"] == "aggregated"]
        declined = run.declines[run.declines["device_class"] == name]
        rows.append(
            {
                "class": name,
                "devices": sizes.get(name),
                "reached": mine["client"].nunique(),
                "contributed": done["client"].nunique(),
                "declined": declined["client"].nunique(),
                "never_reached": None if name not in sizes else sizes[name] - mine["client"].nunique(),
                "assignments": len(mine),
                "aggregated": len(done),
                "bytes_down": int(mine["bytes_down"].sum()),
                "bytes_up": int(mine["bytes_up"].sum()),
            }
        )
    return pd.DataFrame(rows)


def gini(counts: Sequence[float]) -> float | None:
    """Return the Gini coefficient: 0 where all have the same, near 1 where one has everything.

    Returns:
        None where there is nothing to share.

    Source:
        C. Gini, 1912, as ``sum_i (2 i - n - 1) x_i / (n sum x)`` over sorted x.
    """
    values = np.sort(np.asarray(counts, dtype=float))
    if not len(values) or values.sum() <= 0.0:
        return None
    ranks = 2.0 * np.arange(1, len(values) + 1) - len(values) - 1.0
    return float(ranks @ values / (len(values) * values.sum()))


def updates_per_device(run: Run) -> list[int]:
    """Aggregated updates of every device of the fleet, also of those that were never reached."""
    done = run.assignments[run.assignments["outcome"] == "aggregated"]
    counts = [int(count) for count in done.groupby("client").size()]
    total = run.manifest.get("num_devices", run.assignments["client"].nunique())
    return counts + [0] * (int(total) - len(counts))


def waste(run: Run) -> pd.DataFrame:
    """Return one row per way of ending other than aggregated: assignments, bytes and device-hours lost."""
    table = pd.DataFrame(
        {
            "cause": outcomes(run),
            "bytes": run.assignments["bytes_down"] + run.assignments["bytes_up"],
            "device_hours": work_s(run) / 3600.0,
        }
    )
    lost = table[~table["cause"].isin(["aggregated", "in flight"])]
    grouped = lost.groupby("cause").agg(
        assignments=("bytes", "size"), bytes=("bytes", "sum"), device_hours=("device_hours", "sum")
    )
    return grouped.reset_index().sort_values("bytes", ascending=False, ignore_index=True)


def time_by_class(run: Run) -> pd.DataFrame:
    """Return device-hours by class (rows) and phase (columns); ``lost`` is work that was not aggregated."""
    spans = phases(run)
    lost = (spans["outcome"] != "aggregated") & (spans["phase"] != "waiting")
    spans["kind"] = spans["phase"].where(~lost, "lost")
    table = spans.pivot_table(
        index="device_class", columns="kind", values="duration_s", aggfunc="sum", fill_value=0.0
    )
    return table.reindex(columns=[*PHASES, "lost"], fill_value=0.0) / 3600.0


def energy_by_class(run: Run) -> pd.DataFrame:
    """Return watt-hours by class (rows) and phase (columns); ``lost`` is work that was not aggregated.

    Empty where the fleet has no coefficients.
    """
    table = run.assignments
    spent = pd.DataFrame({phase: pd.to_numeric(table[f"{phase}_j"]) for phase in PHASES[:3]}) / 3600.0
    spent = spent[spent.notna().all(axis=1)]
    done = table.loc[spent.index, "outcome"] == "aggregated"
    spent["lost"] = spent.sum(axis=1).where(~done, 0.0)
    spent.loc[~done, list(PHASES[:3])] = 0.0
    return spent.groupby(table.loc[spent.index, "device_class"]).sum()


def budgets(run: Run) -> pd.DataFrame:
    """Return medians by class: what was granted, what share of it the final plan uses, ranks."""
    columns = {
        "download_mb": run.assignments["budget_download_bytes"] / 1e6,
        "memory_gb": run.assignments["budget_memory_bytes"] / 1e9,
        "minutes": run.assignments["budget_seconds"] / 60.0,
        "used_download": run.assignments["used_download"],
        "used_memory": run.assignments["used_memory"],
        "used_seconds": run.assignments["used_seconds"],
        "total_rank": run.assignments["mean_total"],
        "trained_rank": run.assignments["mean_trained"],
    }
    table = pd.DataFrame({name: pd.to_numeric(values) for name, values in columns.items()})
    return table.groupby(run.assignments["device_class"]).median().reset_index()


def declines(run: Run) -> pd.DataFrame:
    """Return one row per class and reason of refusal: how many devices, how often."""
    table = run.declines.groupby(["device_class", "reason"]).agg(
        devices=("client", "nunique"), times=("client", "size")
    )
    return table.reset_index().sort_values("devices", ascending=False, ignore_index=True)


def layer_ranks(run: Run) -> pd.DataFrame:
    """Return mean received and trained rank by layer and version that was trained from."""
    plans = run.plans.set_index("plan")
    rows = []
    for version, group in run.assignments.groupby("version"):
        used = plans.loc[group["plan"].dropna().astype(int)]
        if used.empty:
            continue
        total, trained = np.mean(list(used["total"]), axis=0), np.mean(list(used["trained"]), axis=0)
        rows += [
            {"version": version, "layer": layer, "total": total[k], "trained": trained[k]}
            for k, layer in enumerate(run.layers)
        ]
    return pd.DataFrame(rows, columns=["version", "layer", "total", "trained"])


def online_spans(run: Run) -> pd.DataFrame:
    """Return when each participant was online, from its first assignment on: the record tells no earlier."""
    first = run.assignments.groupby("client")["dispatched_at_s"].min()
    rows = []
    marks: dict[Any, pd.DataFrame] = dict(list(run.presence.groupby("client")))
    for client, began in first.items():
        start: float | None = float(began)
        mine = marks.get(client)
        for event, time_s in () if mine is None else zip(mine["event"], mine["time_s"], strict=True):
            if event == "departed" and start is not None:
                rows.append({"client": client, "start_s": start, "end_s": time_s})
                start = None
            elif event == "arrived" and start is None:
                start = time_s
        if start is not None:
            rows.append({"client": client, "start_s": start, "end_s": run.end_s})
    return pd.DataFrame(rows, columns=["client", "start_s", "end_s"])
