"""How is ``availability.csv`` read? ``device_id,start_s,end_s[,network,charging]``, in any order."""

from pathlib import Path

import numpy as np
import pandas as pd

from fedsim.world.formats.columns import NumberRule, note_long_times, read_choices, read_ids, read_numbers
from fedsim.world.formats.columns import relative_times as relative
from fedsim.world.formats.records import NETWORKS, AvailabilityTable, Mode, Origin
from fedsim.world.formats.sidecar import Sidecar, read_sidecar
from fedsim.world.formats.table import Table, read_table, require_columns

REQUIRED = ("device_id", "start_s", "end_s")
KNOWN = (*REQUIRED, "network", "charging")
MEASURED_MERGE_GAP_S = 60.0
_RULES = {"start_s": NumberRule("seconds"), "end_s": NumberRule("seconds")}


def read_availability(
    path: Path | str,
    *,
    mode: Mode = "normal",
    merge_gap_s: float | None = None,
    unmetered_only: bool = False,
    charging_only: bool = False,
) -> AvailabilityTable:
    """Read online intervals.

    Args:
        path: The file.
        mode: ``lenient`` drops rows that are not numbers, ``strict`` refuses overlaps.
        merge_gap_s: Shorter absences are flaps and are closed. Default: 60 for measured traces, 0 for traces
            whose sidecar says that they are generated.
        unmetered_only: Keep intervals on Wi-Fi only, where there is a column ``network``.
        charging_only: Keep intervals on the charger only, where there is a column ``charging``.

    Raises:
        TraceError: For the first thing that is wrong, with its line.
    """
    sidecar = read_sidecar(path)
    table = require_columns(read_table(path, mode), REQUIRED, KNOWN)
    table, values = read_numbers(table, _RULES)
    starts = relative(table, "start_s", values["start_s"], sidecar)
    ends = relative(table, "end_s", values["end_s"], sidecar)
    _check_order(table, starts, ends, sidecar.period_s)
    eligible = _eligible(table, unmetered_only=unmetered_only, charging_only=charging_only)
    codes, ids = read_ids(table, "device_id")
    period_s = sidecar.period_s or max(float(ends.max()), 1.0)
    table = note_long_times(table, ends)
    empty = int((ends == starts).sum())
    table = table.noted(f"dropped {empty} intervals of zero length", when=empty > 0)
    kept = np.flatnonzero(eligible & (ends > starts))
    order = kept[np.lexsort((starts[kept], codes[kept]))]
    is_generated = (sidecar.source or "").startswith("generated")
    gap_s = merge_gap_s if merge_gap_s is not None else (0.0 if is_generated else MEASURED_MERGE_GAP_S)
    table, first = _beginnings(table, codes[order], starts[order], ends[order], order, gap_s=gap_s)
    joined_ends = np.maximum.reduceat(ends[order], first) if len(first) else ends[:0]
    offsets = np.searchsorted(codes[order][first], np.arange(len(ids) + 1))
    return AvailabilityTable(
        ids,
        offsets,
        starts[order][first],
        joined_ends,
        period_s,
        sidecar.loop,
        sidecar.tz_offset_s,
        _origin(table, sidecar),
        frozenset(table.frame.columns).intersection(KNOWN).difference(REQUIRED),
    )


def _origin(table: Table, sidecar: Sidecar) -> Origin:
    return Origin(table.path, table.sha256, table.notes, sidecar.source, sidecar.licence)


def _check_order(table: Table, starts: np.ndarray, ends: np.ndarray, period_s: float | None) -> None:
    backward = ends < starts
    if backward.any():
        row = int(np.argmax(backward))
        table.fail(row, "end_s", f"a time not before start_s = {starts[row]:g}", "swap or fix the two times")
    if period_s is not None and (ends > period_s).any():
        row = int(np.argmax(ends > period_s))
        table.fail(row, "end_s", f"a time within the period of {period_s:g} s", "declare a larger period_s")


def _eligible(table: Table, *, unmetered_only: bool, charging_only: bool) -> np.ndarray:
    """Which rows a participation rule keeps; the optional columns are checked either way."""
    eligible = np.ones(len(table.lines), dtype=bool)
    rules = (("network", NETWORKS, unmetered_only, "wifi"), ("charging", ("0", "1"), charging_only, "1"))
    for column, choices, wanted, value in rules:
        if column in table.frame.columns:
            codes = read_choices(table, column, choices)
            if wanted:
                eligible &= codes == choices.index(value)
    return eligible


def _beginnings(
    table: Table, codes: np.ndarray, starts: np.ndarray, ends: np.ndarray, order: np.ndarray, *, gap_s: float
) -> tuple[Table, np.ndarray]:
    """Return where a new interval begins among the sorted rows, and count what is joined."""
    if len(order) == 0:
        return table, order
    reach = pd.Series(ends).groupby(codes).cummax().to_numpy()
    same = codes[1:] == codes[:-1]
    overlap = same & (starts[1:] < reach[:-1])
    if overlap.any() and table.mode == "strict":
        row = int(order[1:][np.argmax(overlap)])
        table.fail(row, "start_s", "an interval that overlaps no other", "fix it or read without --strict")
    near = same & (starts[1:] <= reach[:-1] + gap_s)
    gaps = int((near & (starts[1:] > reach[:-1])).sum())
    touching = int(near.sum()) - gaps
    table = table.noted(f"joined {touching} intervals that touch or overlap", when=touching > 0)
    table = table.noted(f"closed {gaps} gaps of at most {gap_s:g} s", when=gaps > 0)
    return table, np.flatnonzero(np.concatenate(([True], ~near)))
