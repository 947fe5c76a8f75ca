"""Which devices are there, and who is online? A whole fleet in arrays; an object only for a device in use.

Time and memory grow with the arrays, so a million idle devices cost a few numbers each.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fedsim.world.availability import Availability
from fedsim.world.device import Device
from fedsim.world.energy import DevicePower, FleetPower
from fedsim.world.formats.records import BandwidthTrace, Origin, StateTable
from fedsim.world.link import Link
from fedsim.world.timetables import Intervals, Timetables, is_there, time_to_next_start
from fedsim.world.trace import StepTrace

__all__ = ["Connections", "Intervals", "Population"]

MIB_BYTES = 2.0**20


@dataclass(frozen=True, slots=True, eq=False)
class Connections:
    """Which trace of the library each device follows, and how; one entry per device."""

    library: tuple[BandwidthTrace, ...]
    trace: np.ndarray
    offset_s: np.ndarray
    scale: np.ndarray
    down_over_up: np.ndarray
    latency_s: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Population:
    """A fleet.

    Args:
        device_ids: Names, by index.
        class_names: Distinct classes, sorted.
        class_index: Class of each device.
        memory_bytes: Usable memory where no event says otherwise.
        compute_flops: Training speed in FLOP per second where no event says otherwise.
        battery_wh: NaN on mains.
        intervals: When devices are online.
        connections: How they are connected.
        state: Events that change memory and speed.
        state_row: Row of each device in `state`, -1 without events.
        start_s: Where in the events second 0 lies; intervals and connections have it in their offsets.
        origins: Files it was made from.
        notes: What the readers mended and what was assumed.
        state_shift_s: Events of each device are read this much later; None where nobody's are.
        power: Energy coefficients; None where none are given.
        cell: Behind which shared cell each device is, -1 for none; None where nobody is behind any.
    """

    device_ids: tuple[str, ...]
    class_names: tuple[str, ...]
    class_index: np.ndarray
    memory_bytes: np.ndarray
    compute_flops: np.ndarray
    battery_wh: np.ndarray
    intervals: Intervals
    connections: Connections
    state: StateTable | None
    state_row: np.ndarray
    start_s: float = 0.0
    origins: tuple[Origin, ...] = ()
    notes: tuple[str, ...] = ()
    state_shift_s: np.ndarray | None = None
    power: FleetPower | None = None
    cell: np.ndarray | None = None
    _made: list[Timetables] = field(init=False, default_factory=list, repr=False)
    _rows: dict[tuple[int, float], Availability] = field(init=False, default_factory=dict, repr=False)
    _constant: dict[float, StepTrace] = field(init=False, default_factory=dict, repr=False)
    _powers: dict[tuple[int, int], DevicePower] = field(init=False, default_factory=dict, repr=False)

    @property
    def num_devices(self) -> int:
        """How many devices there are."""
        return len(self.device_ids)

    @property
    def device_classes(self) -> tuple[str, ...]:
        """Class of each device, by index."""
        return tuple(self.class_names[k] for k in self.class_index)

    @property
    def file_hashes(self) -> Mapping[str, str]:
        """SHA-256 of each file by its path, for the manifest."""
        return {origin.path: origin.sha256 for origin in self.origins}

    def device(self, index: int) -> Device:
        """Build one device; its traces share the fleet's arrays."""
        battery = float(self.battery_wh[index])
        own, kind = self.connections, int(self.class_index[index])
        shared = int(own.trace[index])
        downlink, uplink = self._links(index, own.library[shared])
        return Device(
            index=index,
            device_id=self.device_ids[index],
            device_class=self.class_names[kind],
            memory=self._state_trace(index, "mem_available_mib", float(self.memory_bytes[index]), MIB_BYTES),
            compute=self._compute(index),
            downlink=downlink,
            uplink=uplink,
            availability=self.availability(index),
            battery_wh=None if math.isnan(battery) else battery,
            power=None if self.power is None else self._power(kind, shared),
        )

    def availability(self, index: int) -> Availability:
        """Return when one device is online."""
        rows, row, period = (
            self.intervals,
            int(self.intervals.row[index]),
            float(self.intervals.period_s[index]),
        )
        kept = self._rows.get((row, period))
        if kept is None:
            part = slice(int(rows.offsets[row]), int(rows.offsets[row + 1]))
            kept = Availability(
                rows.starts_s[part], rows.ends_s[part], period if math.isfinite(period) else None
            )
            self._rows[row, period] = kept
        return kept.at_phase(float(rows.phase_s[index]))

    @property
    def timetables(self) -> Timetables:
        """The distinct timetables of the fleet, found at the first question about all of it."""
        if not self._made:
            self._made.append(Timetables(self.intervals))
        return self._made[0]

    def online(self, t_s: float, among: np.ndarray | None = None) -> np.ndarray:
        """Return the sorted indices of the devices that are online at this instant.

        Args:
            t_s: The instant.
            among: Ask only about these indices; default: the whole fleet.
        """
        if among is None:
            return self.timetables.online(t_s)
        present: np.ndarray = among[is_there(self.intervals, t_s, among)]
        return present

    def is_online(self, index: int, t_s: float) -> bool:
        """Say whether one device is online at this instant."""
        return self.timetables.is_online(index, t_s)

    def next_arrival_s(self, t_s: float, among: np.ndarray | None = None) -> float:
        """Return the earliest instant after `t_s` at which a device comes online; infinity if none ever does.

        Args:
            t_s: The instant.
            among: Ask only about these indices; default: the whole fleet.
        """
        chosen = self.timetables.first if among is None else among
        if len(chosen) == 0 or len(self.intervals.starts_s) == 0:
            return math.inf
        ahead = time_to_next_start(self.intervals, t_s, chosen)
        first = int(np.argmin(ahead))
        if not math.isfinite(ahead[first]):
            return math.inf
        arrival = max(t_s + float(ahead[first]), math.nextafter(t_s, math.inf))
        # Folding into the period rounds: settle on an instant at which the device really is there.
        return self.availability(int(chosen[first])).next_return_s(arrival)

    def _links(self, index: int, shared: BandwidthTrace) -> tuple[Link, Link]:
        own = self.connections
        offset, scale = float(own.offset_s[index]), float(own.scale[index])
        latency = float(own.latency_s[index])
        up = shared.up if shared.up is not None else shared.down.scaled(1 / float(own.down_over_up[index]))
        return (
            Link(shared.down.seen(offset, scale), latency),
            Link(up.seen(offset, scale), latency),
        )

    def _power(self, kind: int, shared: int) -> DevicePower:
        """Power of a class on a trace of the library; a fleet has few distinct ones."""
        known = self._powers.get((kind, shared))
        if known is None:
            assert self.power is not None
            known = self._powers[kind, shared] = self.power.of(kind, shared)
        return known

    def _compute(self, index: int) -> StepTrace:
        speed = float(self.compute_flops[index])
        return self._state_trace(index, "compute_factor", speed, speed)

    def _state_trace(self, index: int, key: str, before: float, unit: float) -> StepTrace:
        """Build a device's trace from the events of one key; `before` holds until the first."""
        row = int(self.state_row[index])
        if self.state is None or row < 0 or key not in self.state.events:
            return self._always(before)
        times, values = self.state.events[key].of(row)
        if len(times) == 0:
            return self._always(before)
        values = values * unit
        if times[0] > 0:
            times, values = np.insert(times, 0, 0.0), np.insert(values, 0, before)
        own_s = 0.0 if self.state_shift_s is None else float(self.state_shift_s[index])
        return StepTrace(times, values, self.state.period_s).shifted(self.start_s + own_s)

    def _always(self, value: float) -> StepTrace:
        """The constant trace of a value; a fleet has few distinct ones."""
        known = self._constant.get(value)
        if known is None:
            known = self._constant[value] = StepTrace.constant(value)
        return known
