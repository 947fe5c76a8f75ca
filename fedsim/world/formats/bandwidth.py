"""How is ``bandwidth.csv`` read? ``trace_id,time_s,down_mbps[,up_mbps,rtt_ms]``, one library per fleet.

A row holds until the next one. ``0`` is a measured outage; an empty cell was not measured, which differs.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from fedsim.errors import TraceError
from fedsim.world.formats.columns import NumberRule, note_long_times, read_ids, read_numbers, relative_times
from fedsim.world.formats.records import BandwidthTable, BandwidthTrace, GapPolicy, Mode, Origin
from fedsim.world.formats.sidecar import read_sidecar
from fedsim.world.formats.table import Table, read_table, require_columns
from fedsim.world.trace import StepTrace

REQUIRED = ("trace_id", "time_s", "down_mbps")
KNOWN = (*REQUIRED, "up_mbps", "rtt_ms")
BPS_PER_MBPS = 1e6
_RULES = {
    "time_s": NumberRule("seconds"),
    "down_mbps": NumberRule("Mbit/s", optional=True),
    "up_mbps": NumberRule("Mbit/s", optional=True),
    "rtt_ms": NumberRule("ms", optional=True),
}
_HIGH_MBPS = 100_000.0
_LOW_MBPS = 0.001
_HOLE_STEPS = 10.0
_HOLE_MIN_S = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Rows of one trace, sorted: instants, Mbit/s down and up (NaN: not measured), round trip in ms."""

    times: np.ndarray
    down: np.ndarray
    up: np.ndarray
    rtt: np.ndarray
    step_s: float

    def part(self, rows: slice) -> "_Rows":
        return replace(
            self, times=self.times[rows], down=self.down[rows], up=self.up[rows], rtt=self.rtt[rows]
        )


def read_bandwidth(
    path: Path | str, *, mode: Mode = "normal", gap_policy: GapPolicy | None = None
) -> BandwidthTable:
    """Read a library of bandwidth traces.

    Args:
        path: The file.
        mode: ``lenient`` drops rows that are not numbers.
        gap_policy: What a hole in the measurement means: the rate goes on (``hold``, the default), nothing
            moves (``outage``), another trace begins (``split``), or the file is refused (``error``).

    Raises:
        TraceError: For the first thing that is wrong, with its line.
    """
    sidecar = read_sidecar(path)
    policy = gap_policy or sidecar.gap_policy or "hold"
    table = require_columns(read_table(path, mode), REQUIRED, KNOWN)
    table, values = read_numbers(table, _RULES)
    values["time_s"] = relative_times(table, "time_s", values["time_s"], sidecar)
    codes, ids = read_ids(table, "trace_id")
    table = note_long_times(table, values["time_s"])
    table = _note_high_rates(table, values)
    unmeasured = np.full(len(codes), np.nan)
    by_trace = np.argsort(codes, kind="stable")
    edges = np.searchsorted(codes[by_trace], np.arange(len(ids) + 1))
    traces: list[BandwidthTrace] = []
    for k, trace_id in enumerate(ids):
        mine = by_trace[edges[k] : edges[k + 1]]
        columns = [values.get(name, unmeasured)[mine] for name in ("down_mbps", "up_mbps", "rtt_ms")]
        table, rows = _sorted_rows(table, trace_id, values["time_s"][mine], columns)
        table, parts = _without_holes(table, trace_id, rows, policy, mine)
        for n, part in enumerate(parts):
            name = trace_id if n == 0 else f"{trace_id}.{n + 1}"
            table, trace = _trace(table, name, part, loop=sidecar.loop is not False, line_row=int(mine[0]))
            traces.append(trace)
    origin = Origin(table.path, table.sha256, table.notes, sidecar.source, sidecar.licence)
    return BandwidthTable(tuple(traces), origin)


def _note_high_rates(table: Table, values: dict[str, np.ndarray]) -> Table:
    for name in ("down_mbps", "up_mbps"):
        high = int((values.get(name, np.empty(0)) > _HIGH_MBPS).sum())
        table = table.noted(f"unit? {high} values of {name} above {_HIGH_MBPS:g} Mbit/s", when=high > 0)
    return table


def _sorted_rows(
    table: Table, trace_id: str, times: np.ndarray, columns: list[np.ndarray]
) -> tuple[Table, _Rows]:
    """Sort by time, let the last of equal times win, fill what was not measured, begin with 0."""
    if (np.diff(times) < 0).any():
        table = table.noted(f"{trace_id}: sorted rows that were out of order")
    order = np.argsort(times, kind="stable")
    times, columns = times[order], [column[order] for column in columns]
    last = np.append(np.diff(times) > 0, True)
    again = int((~last).sum())
    table = table.noted(f"{trace_id}: {again} rows repeat a time; the last one counts", when=again > 0)
    times, columns = times[last], [column[last] for column in columns]
    measured = np.flatnonzero(np.isfinite(columns[0]))
    if len(measured) == 0:
        raise TraceError(
            f'{table.path}: down_mbps: expected at least one measured rate in "{trace_id}", found none; '
            "add rates or remove the trace"
        )
    begin = measured[0]
    table = table.noted(f"{trace_id}: dropped {begin} leading rows without a rate", when=bool(begin > 0))
    times, columns = times[begin:] - times[begin], [column[begin:] for column in columns]
    held = np.maximum.accumulate(np.where(np.isfinite(columns[0]), np.arange(len(times)), 0))
    step_s = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    return table, _Rows(times, columns[0][held], columns[1], columns[2], step_s)


def _without_holes(
    table: Table, trace_id: str, rows: _Rows, policy: GapPolicy, lines: np.ndarray
) -> tuple[Table, list[_Rows]]:
    """Apply the gap policy to steps much longer than the usual one."""
    limit_s = max(_HOLE_STEPS * rows.step_s, _HOLE_MIN_S)
    holes = np.flatnonzero(np.diff(rows.times) > limit_s)
    if len(holes) == 0:
        return table, [rows]
    longest = float(np.diff(rows.times)[holes].max())
    what = f"{trace_id}: {len(holes)} holes longer than {limit_s:g} s (longest {longest:g} s)"
    if policy == "error":
        line = table.lines[int(lines[0])]
        raise TraceError(f"{table.path}:{line}: expected no holes, found {what}; see gap_policy")
    table = table.noted(f"{what}; gap_policy = {policy}")
    if policy == "hold":
        return table, [rows]
    if policy == "split":
        cuts = [0, *(int(hole) + 1 for hole in holes), len(rows.times)]
        parts = [rows.part(slice(a, b)) for a, b in pairwise(cuts)]
        return table, [replace(part, times=part.times - part.times[0]) for part in parts]
    at, nothing = holes + 1, np.zeros(len(holes))
    return table, [
        _Rows(
            np.insert(rows.times, at, rows.times[holes] + rows.step_s),
            np.insert(rows.down, at, nothing),
            np.insert(rows.up, at, np.where(np.isfinite(rows.up[holes]), 0.0, np.nan)),
            np.insert(rows.rtt, at, rows.rtt[holes]),
            rows.step_s,
        )
    ]


def _trace(
    table: Table, trace_id: str, rows: _Rows, *, loop: bool, line_row: int
) -> tuple[Table, BandwidthTrace]:
    up, ratio = _filled_up(rows)
    if ratio is not None:
        table = table.noted(f"{trace_id}: up_mbps measured in part; the rest is down_mbps / {ratio:.2f}")
    for name, rates in (("down_mbps", rows.down), ("up_mbps", up)):
        if rates is not None and not rates.any():
            raise TraceError(
                f"{table.path}:{table.lines[line_row]}: {name}: expected some rate > 0, got only 0 "
                f'in "{trace_id}"; a transfer would never end, remove the trace'
            )
    mean = float(rows.down.mean())
    table = table.noted(f"{trace_id}: unit? mean rate below 1 kbit/s", when=mean < _LOW_MBPS)
    measured_rtt = rows.rtt[np.isfinite(rows.rtt)]
    latency_s = float(np.median(measured_rtt)) / 2000.0 if len(measured_rtt) else None
    down = _steps(rows, rows.down, loop=loop)
    return table, BandwidthTrace(
        trace_id, down, None if up is None else _steps(rows, up, loop=loop), latency_s
    )


def _filled_up(rows: _Rows) -> tuple[np.ndarray | None, float | None]:
    """Uplink rates: as measured, or None; measured in part, the trace's own down/up ratio fills the rest."""
    measured = np.isfinite(rows.up)
    if measured.all():
        return rows.up, None
    moving = measured & (rows.up > 0) & (rows.down > 0)
    if not moving.any():
        return None, None
    ratio = float(np.median(rows.down[moving] / rows.up[moving]))
    return np.where(measured, rows.up, rows.down / ratio), ratio


def _steps(rows: _Rows, rates_mbps: np.ndarray, *, loop: bool) -> StepTrace:
    """The last row holds for the median step; then the trace begins again or is over."""
    end = float(rows.times[-1]) + rows.step_s
    rates = rates_mbps * BPS_PER_MBPS
    if loop:
        return StepTrace(rows.times, rates, end)
    return StepTrace(np.append(rows.times, end), np.append(rates, 0.0))
