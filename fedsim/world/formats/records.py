"""What do the four trace files say, once they are read and checked? Arrays and names, no file access.

Identifiers are held once; everything per row is an array. `Origin` is what the record of a run keeps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fedsim.world.trace import StepTrace

Kind = Literal["availability", "bandwidth", "devices", "state"]
Mode = Literal["lenient", "normal", "strict"]
GapPolicy = Literal["hold", "outage", "split", "error"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a table comes from.

    Args:
        path: As the user wrote it.
        sha256: Of the file's bytes, compressed if it is.
        notes: What the reader mended or finds odd, one sentence each, with counts.
        source: Named in the sidecar file.
        licence: Named in the sidecar file.
    """

    path: str
    sha256: str
    notes: tuple[str, ...] = ()
    source: str | None = None
    licence: str | None = None

    @property
    def is_generated(self) -> bool:
        """Whether the sidecar says that a generator wrote the file, so that its gaps are meant."""
        return (self.source or "").startswith("generated")


@dataclass(frozen=True, slots=True, eq=False)
class AvailabilityTable:
    """Online intervals in compressed rows: those of ``ids[k]`` lie at ``offsets[k]:offsets[k + 1]``.

    Args:
        ids: Names of the rows, sorted.
        offsets: Where each row begins; one more than there are rows.
        starts_s: Sorted within a row.
        ends_s: Later than the starts; intervals of a row are apart.
        period_s: Declared in the sidecar, or the latest end in the file.
        loop: What the sidecar says about beginning again, None if nothing.
        tz_offset_s: Offset of the file's clock from UTC, for devices that name none.
        origin: Where the table comes from.
        tells: Optional columns of the file; participation rules about them have been carried out.
    """

    ids: tuple[str, ...]
    offsets: np.ndarray
    starts_s: np.ndarray
    ends_s: np.ndarray
    period_s: float
    loop: bool | None
    tz_offset_s: float
    origin: Origin
    tells: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, eq=False)
class BandwidthTrace:
    """One entry of the bandwidth library.

    Args:
        trace_id: Its name.
        down: Bits per second from the server.
        up: Bits per second to the server; None where it was not measured.
        latency_s: One way; None where it was not measured.
    """

    trace_id: str
    down: StepTrace
    up: StepTrace | None
    latency_s: float | None


@dataclass(frozen=True, slots=True, eq=False)
class BandwidthTable:
    """A library of bandwidth traces that a fleet shares."""

    traces: tuple[BandwidthTrace, ...]
    origin: Origin


@dataclass(frozen=True, slots=True, eq=False)
class DeviceTable:
    """One row per device; NaN or an empty text where the file says nothing.

    Args:
        ids: Unique names.
        classes: Class of each device.
        numbers: The numeric columns by name, each with one entry per device.
        availability_ids: Which availability row each device follows.
        bandwidth_ids: Which bandwidth trace each device follows.
        cell_ids: Behind which shared cell each device is.
        lines: Line of each device in the file.
        origin: Where the table comes from.
    """

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    numbers: Mapping[str, np.ndarray]
    availability_ids: tuple[str, ...]
    bandwidth_ids: tuple[str, ...]
    cell_ids: tuple[str, ...]
    lines: np.ndarray
    origin: Origin


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """Events of one key in compressed rows; row k belongs to ``StateTable.ids[k]``.

    Args:
        offsets: Where each row begins; one more than there are rows.
        times_s: Sorted and distinct within a row.
        values: The value from each instant on.
    """

    offsets: np.ndarray
    times_s: np.ndarray
    values: np.ndarray

    def of(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the instants and values of one row."""
        part = slice(int(self.offsets[row]), int(self.offsets[row + 1]))
        return self.times_s[part], self.values[part]


@dataclass(frozen=True, slots=True, eq=False)
class StateTable:
    """How the state of devices changes.

    Args:
        ids: Devices that have events, sorted.
        events: By key; ``network`` is held as an index into ``NETWORKS``.
        period_s: Length after which the events begin again; None to hold the last value.
        origin: Where the table comes from.
    """

    ids: tuple[str, ...]
    events: Mapping[str, Events]
    period_s: float | None
    origin: Origin


NETWORKS = ("none", "cell", "wifi")

Record = AvailabilityTable | BandwidthTable | DeviceTable | StateTable
