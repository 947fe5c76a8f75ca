"""``fedsim traces stats``: the numbers of a trace, for people or as JSON."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsim.cli.speech import JsonOption
from fedsim.cli.traces_check import ENDINGS
from fedsim.errors import TraceError
from fedsim.units import format_seconds

if TYPE_CHECKING:
    import numpy as np

    from fedsim.world.formats.records import AvailabilityTable, DeviceTable, Record
    from fedsim.world.statistics import AvailabilityStatistics, BandwidthStatistics, RateStatistics

TraceArgument = Annotated[Path, typer.Argument(metavar="PATH", help="An availability or bandwidth file.")]
DevicesOption = Annotated[
    Path | None,
    typer.Option(
        "--devices",
        help="Device file with the period of each row (availability); default: devices.csv beside it.",
    ),
]
MergeOption = Annotated[
    float | None,
    typer.Option(
        "--merge-gap", min=0, help="Close absences up to so many seconds; default: 60 where measured, else 0."
    ),
]
MinOption = Annotated[
    float, typer.Option("--min-session", min=0, help="Leave shorter sessions, in seconds, out of lengths.")
]
OutageOption = Annotated[
    float, typer.Option("--outage-below", min=0, help="Rates below so many Mbit/s are an outage (bandwidth).")
]


def stats(
    path: TraceArgument,
    devices: DevicesOption = None,
    merge_gap: MergeOption = None,
    min_session: MinOption = 0.0,
    outage_below: OutageOption = 0.1,
    as_json: JsonOption = False,
) -> None:
    """Describe a trace in numbers: who is online when and for how long, or how fast links are and remain."""
    from fedsim.world.formats.records import AvailabilityTable, BandwidthTable  # noqa: PLC0415 - imports numpy
    from fedsim.world.statistics import (  # noqa: PLC0415 - as above
        availability_statistics,
        bandwidth_statistics,
    )

    record = read_for_figures(path, merge_gap)
    found: AvailabilityStatistics | BandwidthStatistics
    if isinstance(record, AvailabilityTable):
        found = availability_statistics(record, row_periods(record, devices), min_session)
        lines = _availability_lines(found)
    elif isinstance(record, BandwidthTable):
        found = bandwidth_statistics(record, outage_below)
        lines = _bandwidth_lines(found)
    else:
        raise TraceError(
            f"{path}: expected availability or bandwidth, found another kind; see `traces check`"
        )
    typer.echo(json.dumps(plain(asdict(found)), indent=2) if as_json else "\n".join(lines))


def read_for_figures(path: Path, merge_gap_s: float | None) -> "Record":
    """Read a trace as a scenario would, with the absences closed that are asked for."""
    from fedsim.world.formats.availability import read_availability  # noqa: PLC0415 - imports pandas
    from fedsim.world.formats.read import read_trace  # noqa: PLC0415 - as above
    from fedsim.world.formats.records import AvailabilityTable  # noqa: PLC0415 - as above

    record = read_trace(path)
    if isinstance(record, AvailabilityTable) and merge_gap_s is not None:
        return read_availability(path, merge_gap_s=merge_gap_s)
    return record


def row_periods(table: "AvailabilityTable", devices: Path | None) -> "np.ndarray | None":
    """Return the period of each availability row as the device file says; None where there is none."""
    from fedsim.world.formats.devices import read_devices  # noqa: PLC0415 - imports pandas

    folder = Path(table.origin.path).parent
    beside = (folder / f"devices{ending}" for ending in ENDINGS)
    chosen = devices or next((path for path in beside if path.is_file()), None)
    return None if chosen is None else _periods(table, read_devices(chosen))


def _periods(table: "AvailabilityTable", fleet: "DeviceTable") -> "np.ndarray":
    import numpy as np  # noqa: PLC0415 - keeps help fast

    own = dict(zip(fleet.availability_ids, fleet.numbers["availability_period_s"].tolist(), strict=True))
    periods = np.array([own.get(name, math.nan) for name in table.ids])
    return np.where(np.isnan(periods), table.period_s, periods)


def plain(value: Any) -> Any:
    """Turn numbers that JSON does not have into null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {
            f"{key:g}" if isinstance(key, float) else str(key): plain(inner) for key, inner in value.items()
        }
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _availability_lines(found: "AvailabilityStatistics") -> Iterator[str]:
    ratio = "" if found.diurnal_ratio is None else f", busiest over quietest hour {found.diurnal_ratio:.2f}"
    hours = [f"{share:.1%}" for share in found.hourly_share]
    yield f"{found.num_devices:,} devices, {found.days:.3g} days each"
    yield f"online {found.online_share:.1%} of the time{ratio}"
    yield f"  by local hour 0-11   {' '.join(f'{text:>6}' for text in hours[:12])}"
    yield f"  by local hour 12-23  {' '.join(f'{text:>6}' for text in hours[12:])}"
    yield f"  by device: mean {found.share_mean:.1%}, sd {found.share_sd:.1%}"
    yield f"    {_levels(found.share_quantiles, '{:.1%}')}"
    yield f"sessions: {found.sessions_per_day:.2f} per device and day, mean {_span(found.session_mean_s)}"
    yield f"  length, s   {_levels(found.session_s, '{:,.0f}')}"
    yield f"  absence, s  {_levels(found.gap_s, '{:,.0f}')}"
    yield "chance that a job is cut because the device leaves"
    yield f"  from a random session start   {_jobs(found.cut_from_start)}"
    yield f"  from a random online instant  {_jobs(found.cut_from_online)}"


def _bandwidth_lines(found: "BandwidthStatistics") -> Iterator[str]:
    yield f"{found.num_traces:,} traces, {found.down.hours:.3g} hours"
    yield from _rate_lines("down", found.down)
    if found.up is not None:
        yield from _rate_lines("up", found.up)
    if found.down_over_up is not None:
        yield f"down over up: median {found.down_over_up:.2f}, sd of its log {found.ratio_ln_sd:.2f}"
    else:
        yield "down over up: no uplink was measured; a scenario draws the ratio"
    if found.rtt_ms is not None:
        yield f"round trip: median {found.rtt_ms:.0f} ms"


def _rate_lines(name: str, found: "RateStatistics") -> Iterator[str]:
    memory = ", ".join(
        f"{lag} s {'-' if value is None else f'{value:.2f}'}" for lag, value in found.autocorrelation.items()
    )
    yield f"{name}: mean {found.mean_mbps:.3g} Mbit/s, sd {found.sd_mbps:.3g}"
    yield f"  Mbit/s  {_levels(found.rate_mbps, '{:.3g}')}"
    yield (
        f"  outside outages: geometric mean {found.median_mbps:.3g} Mbit/s, sd of the log "
        f"{found.between_ln_sd:.2f} between and {found.within_ln_sd:.2f} within traces"
    )
    yield f"  autocorrelation of the log: {memory}"
    lengths = ""
    if found.outage_mean_s is not None:
        apart = "" if found.between_outages_s is None else f", {found.between_outages_s:.3g} s apart"
        lengths = f", mean {found.outage_mean_s:.2g} s{apart}"
    yield f"  outages (< {found.outage_below_mbps:g} Mbit/s): {found.outage_share:.2%} of the time{lengths}"


def _levels(values: Mapping[float, float], form: str) -> str:
    return "  ".join(f"p{100 * level:.0f} {_told(value, form)}" for level, value in values.items())


def _told(value: float, form: str) -> str:
    return form.format(value) if math.isfinite(value) else "-"


def _span(seconds: float) -> str:
    return format_seconds(seconds) if math.isfinite(seconds) else "-"


def _jobs(values: Mapping[int, float]) -> str:
    return "  ".join(f"{job} min {_told(value, '{:.0%}')}" for job, value in values.items())
