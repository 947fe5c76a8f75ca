"""What does a reader of a published format yield? Canonical rows, one by one, and counts of what it changed.

The field names are the columns of the canonical CSV; None is an empty cell.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fedsim.world.formats.records import Kind


class OnlineRow(NamedTuple):
    """One stay: the device is online on ``[start_s, end_s)``; equal times keep a device that never is."""

    device_id: str
    start_s: float
    end_s: float
    network: str | None = None
    charging: int | None = None


class RateRow(NamedTuple):
    """One step of a bandwidth trace; it holds until the next. None was not measured, 0 is an outage."""

    trace_id: str
    time_s: float
    down_mbps: float | None
    up_mbps: float | None = None


class DeviceRow(NamedTuple):
    """One device; None leaves the cell to the defaults of its class."""

    device_id: str
    device_class: str
    compute_gflops: float | None = None
    availability_period_s: float | None = None
    bandwidth_id: str | None = None
    bandwidth_scale: float | None = None
    tz_offset_s: float | None = None


class StateRow(NamedTuple):
    """One event; the value holds until the next event of its key."""

    device_id: str
    time_s: float
    key: str
    value: float | str


class Count(NamedTuple):
    """What a reader merged, dropped, split, clipped or assumed, for the closing report.

    Counts with the same words are added up.
    """

    what: str
    number: int = 1


Row = OnlineRow | RateRow | DeviceRow | StateRow
Item = Row | Count

KINDS: dict[type, Kind] = {
    OnlineRow: "availability",
    RateRow: "bandwidth",
    DeviceRow: "devices",
    StateRow: "state",
}
OPTIONAL_COLUMNS = ("network", "charging")
"""Columns that a file has only if its first row fills them."""


@dataclass(frozen=True, slots=True)
class Choices:
    """What the user may choose about a conversion; None means the default of the format.

    Args:
        merge_gap_s: Absences of at most this length are closed.
        bin_s: Width of the bins into which packets are counted, or the time between two drawn rates.
        seed: Of the drawn rates.
    """

    merge_gap_s: float | None = None
    bin_s: float | None = None
    seed: int | None = None


class NamedPath(NamedTuple):
    """An input file and the identifier that its traces get."""

    path: Path
    name: str


Inputs = Sequence[NamedPath]
Items = Iterator[Item]
