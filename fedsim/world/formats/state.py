"""How is ``state.csv`` read? Events ``device_id,time_s,key,value``; each holds until the next of its key."""

from pathlib import Path

import numpy as np

from fedsim.world.formats.columns import (
    NumberRule,
    note_long_times,
    read_choices,
    read_ids,
    read_numbers,
    relative_times,
)
from fedsim.world.formats.records import NETWORKS, Events, Mode, Origin, StateTable
from fedsim.world.formats.sidecar import read_sidecar
from fedsim.world.formats.table import Table, read_table, require_columns

REQUIRED = ("device_id", "time_s", "key", "value")
_NUMERIC = {
    "battery_pct": NumberRule("percent"),
    "temp_c": NumberRule("degrees Celsius", minimum=None),
    "compute_factor": NumberRule("factor"),
    "mem_available_mib": NumberRule("MiB"),
}
_CHOICES = {"charging": ("0", "1"), "network": NETWORKS}
KEYS = (*_NUMERIC, *_CHOICES)


def read_state(path: Path | str, *, mode: Mode = "normal") -> StateTable:
    """Read how the state of devices changes.

    Raises:
        TraceError: For the first thing that is wrong, with its line.
    """
    sidecar = read_sidecar(path)
    table = require_columns(read_table(path, mode), REQUIRED, REQUIRED)
    table, values = read_numbers(table, {"time_s": NumberRule("seconds")})
    times = relative_times(table, "time_s", values["time_s"], sidecar)
    keys = read_choices(table, "key", KEYS)
    codes, ids = read_ids(table, "device_id")
    table = note_long_times(table, times)
    _check_period(table, times, sidecar.period_s)
    events: dict[str, Events] = {}
    dropped, repeated = 0, 0
    for k, key in enumerate(KEYS):
        rows = np.flatnonzero(keys == k)
        if len(rows) == 0:
            continue
        kept, numbers = _values(table, key, rows)
        dropped += len(rows) - len(kept)
        events[key], again = _compressed(codes[kept], times[kept], numbers, len(ids))
        repeated += again
    table = table.noted(f"dropped {dropped} events whose value is not a number", when=dropped > 0)
    table = table.noted(f"{repeated} events repeat a time; the last one counts", when=repeated > 0)
    origin = Origin(table.path, table.sha256, table.notes, sidecar.source, sidecar.licence)
    return StateTable(ids, events, sidecar.period_s, origin)


def _check_period(table: Table, times: np.ndarray, period_s: float | None) -> None:
    if period_s is not None and (times >= period_s).any():
        row = int(np.argmax(times >= period_s))
        table.fail(row, "time_s", f"a time within the period of {period_s:g} s", "declare a larger period_s")


def _values(table: Table, key: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of this key that can be read, and their values."""
    part = table.keep(rows)
    if key in _CHOICES:
        return rows, read_choices(part, "value", _CHOICES[key]).astype(np.float64)
    kept, values = read_numbers(part, {"value": _NUMERIC[key]})
    if key == "battery_pct" and (values["value"] > 100).any():
        kept.fail(int(np.argmax(values["value"] > 100)), "value", "a percentage up to 100", "fix the value")
    return rows[np.isin(part.lines, kept.lines)], values["value"]


def _compressed(
    codes: np.ndarray, times: np.ndarray, values: np.ndarray, num_rows: int
) -> tuple[Events, int]:
    """Sort into one row per device; of equal times the last in the file counts."""
    order = np.lexsort((times, codes))
    codes, times, values = codes[order], times[order], values[order]
    last = np.append((np.diff(codes) > 0) | (np.diff(times) > 0), True)
    codes, times, values = codes[last], times[last], values[last]
    return Events(np.searchsorted(codes, np.arange(num_rows + 1)), times, values), int((~last).sum())
