"""How does a run look in a timeline viewer? Chrome trace events: one track per client, one for the server.

Virtual microseconds are the time axis. Large runs are thinned by a rule that the file states itself.

Source: "Trace Event Format", Chromium project: complete (X), instant (i), counter (C), metadata (M) events.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from fedsim.experiment.load import Run
from fedsim.experiment.report import tables
from fedsim.experiment.report.fleet import in_flight

MAX_TRACK_EVENTS = 100_000
MAX_COUNTS = 5_000
MICRO = 1e6
SERVER = 1

Event = dict[str, Any]


def timeline(run: Run, limit: int = MAX_TRACK_EVENTS) -> dict[str, Any]:
    """Return a Chrome trace.

    Args:
        run: As loaded.
        limit: Most phases that are told; beyond it, only every k-th client of each class is, whole.

    Returns:
        JSON values: ``traceEvents``, and in ``metadata`` what was left out.
    """
    spans = tables.phases(run)
    kept, rule = _kept_clients(run, len(spans), limit)
    pids = {name: SERVER + 1 + index for index, name in enumerate(tables.device_classes(run))}
    mine = spans[spans["client"].isin(kept)]
    events = [
        *_names(run, pids, kept),
        *_server(run),
        *_phase_events(mine, pids),
        *_end_events(run, pids, kept),
        *_replan_events(run, pids, kept),
        *_counters(run, spans),
    ]
    return {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "metadata": {
            "clock": "virtual time in microseconds",
            "thinning": rule,
            "clients_shown": len(kept),
            "clients": int(run.assignments["client"].nunique()),
            "executor": str(run.manifest.get("executor")),
            "caveats": [str(caveat) for caveat in run.manifest.get("caveats", [])],
        },
    }


def _kept_clients(run: Run, num_phases: int, limit: int) -> tuple[set[int], str]:
    clients = run.assignments.drop_duplicates("client")[["client", "device_class"]]
    if num_phases <= limit:
        return set(clients["client"]), "none: every phase of every client is here"
    every = int(np.ceil(num_phases / limit))
    kept: set[int] = set()
    for _, group in clients.groupby("device_class"):
        kept |= set(group["client"].sort_values().iloc[::every])
    return kept, f"clients: of each class one in {every} by index, whole; counters are of all clients"


def _rows(frame: pd.DataFrame) -> Iterator[Any]:
    """One value with named fields per row."""
    return frame.itertuples(index=False)


def _names(run: Run, pids: dict[str, int], kept: set[int]) -> list[Event]:
    events = [_meta("process_name", SERVER, 0, "server"), _meta("thread_name", SERVER, 1, "versions")]
    events.append(
        {"ph": "M", "name": "process_sort_index", "pid": SERVER, "tid": 0, "args": {"sort_index": 0}}
    )
    for name, pid in pids.items():
        events.append(_meta("process_name", pid, 0, name))
        events.append(
            {"ph": "M", "name": "process_sort_index", "pid": pid, "tid": 0, "args": {"sort_index": pid}}
        )
    first = run.assignments.drop_duplicates("client")
    return events + [
        _meta("thread_name", pids[row.device_class], _tid(row.client), str(row.device))
        for row in _rows(first[first["client"].isin(kept)])
    ]


def _meta(kind: str, pid: int, tid: int, name: str) -> Event:
    return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": {"name": name}}


def _tid(client: Any) -> int:
    return int(client) + 1


def _micro(time_s: Any) -> int:
    """Return an instant as whole microseconds: viewers compare ends with beginnings exactly."""
    return round(float(time_s) * MICRO)


def _stretch(start_s: Any, end_s: Any) -> Event:
    """Return beginning and length such that the end is the rounded end, where the next may begin.

    What takes no time is an instant: viewers may lose the end of a stretch without length.
    """
    start = _micro(start_s)
    length = _micro(end_s) - start
    return {"ph": "X", "ts": start, "dur": length} if length > 0 else {"ph": "i", "s": "t", "ts": start}


def _phase_events(spans: pd.DataFrame, pids: dict[str, int]) -> list[Event]:
    names = {"waiting": "waiting at the server"}
    return [
        {
            "cat": "client",
            "name": names.get(row.phase, row.phase),
            "pid": pids[row.device_class],
            "tid": _tid(row.client),
            **_stretch(row.start_s, row.end_s),
            "args": {
                "assignment": int(row.assignment),
                "outcome": row.outcome if isinstance(row.outcome, str) else "in flight",
                "cut": bool(row.cut) and row.phase != "waiting",
            },
        }
        for row in _rows(spans)
        if row.phase != "waiting" or row.duration_s > 0.0
    ]


def _end_events(run: Run, pids: dict[str, int], kept: set[int]) -> list[Event]:
    table = run.assignments
    lost = table[table["client"].isin(kept) & table["outcome"].notna() & (table["outcome"] != "aggregated")]
    return [
        {
            "ph": "i",
            "s": "t",
            "cat": "outcome",
            "name": str(row.outcome),
            "pid": pids[str(row.device_class)],
            "tid": _tid(row.client),
            "ts": _micro(row.settled_at_s),
            "args": {
                "assignment": row.assignment,
                "phase": row.phase if isinstance(row.phase, str) else "",
                "reason": str(row.reason),
            },
        }
        for row in _rows(lost)
    ]


def _replan_events(run: Run, pids: dict[str, int], kept: set[int]) -> list[Event]:
    if run.replans.empty:
        return []
    owners = run.assignments.set_index("assignment")[["client", "device_class"]]
    ranks = run.plans.set_index("plan")["mean_total"]
    told = run.replans.join(owners, on="assignment")
    return [
        {
            "ph": "i",
            "s": "t",
            "cat": "plan",
            "name": "re-planned",
            "pid": pids[str(row.device_class)],
            "tid": _tid(row.client),
            "ts": _micro(row.time_s),
            "args": {
                "assignment": row.assignment,
                "reason": str(row.reason),
                "old_mean_rank": float(ranks[row.old_plan]),
                "new_mean_rank": float(ranks[row.new_plan]),
            },
        }
        for row in _rows(told[told["client"].isin(kept)])
    ]


def _server(run: Run) -> list[Event]:
    """Rounds as stretches of the server's track, evaluations as instants."""
    events: list[Event] = []
    began_s = 0.0
    for row in _rows(run.rounds):
        events.append(
            {
                "cat": "server",
                "name": f"version {row.version}" if row.result == "aggregated" else str(row.result),
                "pid": SERVER,
                "tid": 1,
                **_stretch(began_s, row.time_s),
                "args": {"updates": int(row.num_updates), "failed": int(row.failed)},
            }
        )
        began_s = float(row.time_s)
    for row in _rows(run.evaluations):
        loss = float(row.loss) if pd.notna(row.loss) else None
        events.append(
            {
                "ph": "i",
                "s": "p",
                "cat": "server",
                "name": f"evaluated version {row.version}",
                "pid": SERVER,
                "tid": 1,
                "ts": _micro(row.time_s),
                "args": {} if loss is None else {"loss": loss},
            }
        )
    return events


def _counters(run: Run, spans: pd.DataFrame) -> list[Event]:
    """Online devices, assignments in flight, and transfers on their way in bytes, of all clients."""
    online = zip(run.fleet["time_s"], run.fleet["online"], strict=True)
    times, counts = in_flight(run)
    events = [
        _count("online devices", time_s, "devices", int(count)) for time_s, count in _thin(list(online))
    ]
    events += [
        _count("assignments in flight", time_s, "assignments", int(count))
        for time_s, count in _thin(list(zip(times, counts, strict=True)))
    ]
    return events + [
        _count("bytes in flight", time_s, "bytes", int(size))
        for time_s, size in _thin(_bytes_in_flight(run, spans))
    ]


def _bytes_in_flight(run: Run, spans: pd.DataFrame) -> list[tuple[float, int]]:
    """Sizes of all transfers under way, as steps; of a transfer that was cut, what had passed."""
    sizes = run.assignments.set_index("assignment")[["bytes_down", "bytes_up"]]
    moves = spans[spans["phase"].isin(["download", "upload"])]
    column = {"download": "bytes_down", "upload": "bytes_up"}
    steps: list[tuple[float, int]] = []
    for row in _rows(moves):
        size = int(sizes[column[row.phase]][row.assignment])
        steps += [(float(row.start_s), size), (float(row.end_s), -size)]
    steps.sort()
    total = 0
    told: list[tuple[float, int]] = []
    for time_s, change in steps:
        total += change
        if told and told[-1][0] == time_s:
            told.pop()
        told.append((time_s, total))
    return told


def _thin(points: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Keep evenly spaced points, the first and the last among them."""
    if len(points) <= MAX_COUNTS:
        return points
    return [points[int(index)] for index in np.linspace(0, len(points) - 1, MAX_COUNTS)]


def _count(name: str, time_s: Any, unit: str, value: int) -> Event:
    return {"ph": "C", "name": name, "pid": SERVER, "tid": 0, "ts": _micro(time_s), "args": {unit: value}}
