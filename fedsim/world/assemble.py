"""How do four tables become a fleet? Defaults, references and draws, each said in a note."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import Literal, NoReturn

import numpy as np

from fedsim.errors import TraceError
from fedsim.seeds import Seeds
from fedsim.world.calibration import CLASS_DEFAULTS, RATIO_MODELS, ClassDefaults
from fedsim.world.formats.records import AvailabilityTable, BandwidthTable, DeviceTable, StateTable
from fedsim.world.population import MIB_BYTES, Connections, Intervals, Population

AvailabilityPolicy = Literal["always", "never", "error"]

_DAY_S = 86400.0
_UNIFORM = 2.0**63


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """What the files leave open.

    Args:
        seed: Root of the draws below, one stream per device and purpose.
        start_s: Where in the traces second 0 lies.
        limit: Only so many devices, the first of the file.
        availability_policy: Whether a device without rows is ``always`` or ``never`` online, or an ``error``.
            Without an availability file only ``always`` is possible.
        loop: Whether availability begins again; default: the sidecar, else yes.
        spread_days: Shift each device by a drawn number of whole days, which keeps the daily rhythm.
        bandwidth_scale: Multiplies every rate.
        network_family: Which down/up ratio holds where no uplink was measured.
        latency_s: One way, where neither trace nor class says.
        flops_per_token: Turns ``train_tokens_per_s`` into FLOP per second.
        class_defaults: By class, bytes of memory and FLOP/s for empty cells; None keeps the built-in.
    """

    seed: int = 0
    start_s: float = 0.0
    limit: int | None = None
    availability_policy: AvailabilityPolicy = "error"
    loop: bool | None = None
    spread_days: bool = False
    bandwidth_scale: float = 1.0
    network_family: str = "wifi"
    latency_s: float = 0.05
    flops_per_token: float | None = None
    class_defaults: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)


def assemble_population(
    devices: DeviceTable,
    availability: AvailabilityTable | None,
    bandwidth: BandwidthTable,
    state: StateTable | None = None,
    options: FleetOptions = FleetOptions(),
) -> Population:
    """Make a fleet.

    Raises:
        TraceError: If a reference leads nowhere, or a value is given neither by the file nor by the class.
    """
    devices = _first(devices, options.limit)
    class_names = tuple(sorted(set(devices.classes)))
    class_index = np.searchsorted(class_names, devices.classes)
    defaults = _defaults(options.class_defaults)
    intervals = _intervals(devices, availability, options)
    connections, drawn = _connections(devices, bandwidth, defaults, options)
    state_row, strangers = _state_rows(devices, state)
    tables = (devices, availability, bandwidth, state)
    origins = tuple(table.origin for table in tables if table is not None)
    notes = [note for origin in origins for note in origin.notes]
    if drawn:
        notes.append(f"{devices.origin.path}: {drawn} devices without bandwidth_id: drawn from the library")
    if strangers and state is not None and options.limit is None:
        notes.append(
            f"{state.origin.path}: events of {strangers} devices that are not in the fleet are not used"
        )
    return Population(
        device_ids=devices.ids,
        class_names=class_names,
        class_index=class_index,
        memory_bytes=_filled(devices, "mem_available_mib", _by_class(defaults, "mem_available_mib"))
        * MIB_BYTES,
        compute_flops=_speed(devices, defaults, options),
        battery_wh=_battery(devices, defaults),
        intervals=intervals,
        connections=connections,
        state=state,
        state_row=state_row,
        start_s=options.start_s,
        origins=origins,
        notes=tuple(notes),
        cell=_cells(devices),
    )


def _cells(devices: DeviceTable) -> np.ndarray | None:
    """Number the cells by name; None if no device names one."""
    if not any(devices.cell_ids):
        return None
    names = {name: place for place, name in enumerate(sorted({name for name in devices.cell_ids if name}))}
    return np.array([names.get(name, -1) for name in devices.cell_ids], dtype=np.int32)


def _fail(devices: DeviceTable, row: int, column: str, expected: str, way_out: str) -> NoReturn:
    where = f"{devices.origin.path}:{devices.lines[row]}: {column}"
    raise TraceError(f'{where}: expected {expected} for the device "{devices.ids[row]}"; {way_out}')


def _first(devices: DeviceTable, limit: int | None) -> DeviceTable:
    if limit is None or limit >= len(devices.ids):
        return devices
    return replace(
        devices,
        ids=devices.ids[:limit],
        classes=devices.classes[:limit],
        numbers={name: values[:limit] for name, values in devices.numbers.items()},
        availability_ids=devices.availability_ids[:limit],
        bandwidth_ids=devices.bandwidth_ids[:limit],
        cell_ids=devices.cell_ids[:limit],
        lines=devices.lines[:limit],
    )


def _defaults(own: Mapping[str, tuple[float | None, float | None]]) -> dict[str, ClassDefaults]:
    """Lay the user's class defaults over the built-in ones."""
    defaults = dict(CLASS_DEFAULTS)
    for name, (memory_bytes, compute_flops) in own.items():
        known = defaults.get(name, ClassDefaults(None, None))
        memory = known.mem_available_mib if memory_bytes is None else memory_bytes / MIB_BYTES
        speed = known.compute_gflops if compute_flops is None else compute_flops / 1e9
        defaults[name] = replace(known, mem_available_mib=memory, compute_gflops=speed)
    return defaults


def _by_class(defaults: Mapping[str, ClassDefaults], name: str) -> dict[str, float | None]:
    return {key: getattr(default, name) for key, default in defaults.items()}


def _filled(devices: DeviceTable, column: str, by_class: Mapping[str, float | None]) -> np.ndarray:
    """Return a column with empty cells filled from the class."""
    values = devices.numbers[column].copy()
    for row in np.flatnonzero(np.isnan(values)).tolist():
        default = by_class.get(devices.classes[row])
        if default is None:
            way_out = f'fill the cell or give class_defaults for "{devices.classes[row]}"'
            _fail(devices, row, column, "a value, or a class with a default", way_out)
        values[row] = default
    return values


def _speed(devices: DeviceTable, defaults: Mapping[str, ClassDefaults], options: FleetOptions) -> np.ndarray:
    tokens = devices.numbers["train_tokens_per_s"]
    by_tokens = np.isfinite(tokens) & np.isnan(devices.numbers["compute_gflops"])
    if not by_tokens.any():
        return _filled(devices, "compute_gflops", _by_class(defaults, "compute_gflops")) * 1e9
    if options.flops_per_token is None:
        row = int(np.argmax(by_tokens))
        _fail(devices, row, "train_tokens_per_s", "compute_gflops", "fill it, or give flops_per_token")
    # A speed in tokens stands in for the missing one; the rest is filled from the class.
    gflops = np.where(by_tokens, tokens * options.flops_per_token / 1e9, devices.numbers["compute_gflops"])
    whole = replace(devices, numbers={**devices.numbers, "compute_gflops": gflops})
    return _filled(whole, "compute_gflops", _by_class(defaults, "compute_gflops")) * 1e9


def _battery(devices: DeviceTable, defaults: Mapping[str, ClassDefaults]) -> np.ndarray:
    by_class = {name: default.battery_wh for name, default in defaults.items()}
    assumed = np.array([by_class.get(name) or np.nan for name in devices.classes])
    given = devices.numbers["battery_wh"]
    return np.where(np.isnan(given), assumed, given)


def _intervals(devices: DeviceTable, table: AvailabilityTable | None, options: FleetOptions) -> Intervals:
    """Rows of the table, with two more behind them: always and never."""
    num = len(devices.ids)
    if table is None:
        if options.availability_policy != "always":
            raise TraceError(
                "availability: expected a file, found none; give one or set availability_policy to always"
            )
        whole = np.full(num, np.inf)
        one = np.zeros(1)
        return Intervals(np.array([0, 1]), one, one + np.inf, np.zeros(num, np.int64), whole, np.zeros(num))
    row = _rows(devices, table, options.availability_policy)
    loop = options.loop if options.loop is not None else table.loop is not False
    period = _periods(devices, table, row, loop=loop)
    tz = devices.numbers["tz_offset_s"]
    phase = np.where(np.isnan(tz), table.tz_offset_s, tz)
    if options.spread_days and loop:
        phase = phase + _whole_days(devices.ids, period, Seeds(options.seed))
    known = row < len(table.ids)
    period = np.where(known, period, np.inf)
    phase = np.where(known, phase + options.start_s, 0.0)
    phase = np.where(np.isfinite(period), np.mod(phase, period), phase)
    size = len(table.starts_s)
    return Intervals(
        offsets=np.concatenate((table.offsets, [size + 1, size + 1])),
        starts_s=np.append(table.starts_s, 0.0),
        ends_s=np.append(table.ends_s, np.inf),
        row=row,
        period_s=period,
        phase_s=phase,
    )


def _rows(devices: DeviceTable, table: AvailabilityTable, policy: AvailabilityPolicy) -> np.ndarray:
    place = {name: k for k, name in enumerate(table.ids)}
    absent = {"always": len(table.ids), "never": len(table.ids) + 1}.get(policy, -1)
    row = np.array([place.get(name, absent) for name in devices.availability_ids], dtype=np.int64)
    if (row < 0).any():
        k = int(np.argmax(row < 0))
        expected = f'rows of "{devices.availability_ids[k]}" in {table.origin.path}'
        _fail(
            devices,
            k,
            "availability_id",
            expected,
            "add them, name the rows of another device there, or set availability_policy to always or never",
        )
    return row


def _periods(devices: DeviceTable, table: AvailabilityTable, row: np.ndarray, *, loop: bool) -> np.ndarray:
    if not loop:
        return np.full(len(row), np.inf)
    own = devices.numbers["availability_period_s"]
    period = np.where(np.isnan(own), table.period_s, own)
    latest = np.zeros(len(table.ids) + 2)
    counts = np.diff(table.offsets)
    if len(table.ends_s):
        latest[: len(table.ids)] = np.where(
            counts > 0, table.ends_s[np.maximum(table.offsets[1:] - 1, 0)], 0.0
        )
    beyond = latest[row] > period
    if beyond.any():
        k = int(np.argmax(beyond))
        expected = f"at least {latest[row[k]]:g}, where the last interval ends"
        _fail(devices, k, "availability_period_s", expected, "give a larger period")
    return period


def _whole_days(ids: Sequence[str], period: np.ndarray, seeds: Seeds) -> np.ndarray:
    """Draw a shift by whole days for each device whose period is made of whole days."""
    days = np.where(np.mod(period, _DAY_S) == 0, period // _DAY_S, 1).astype(np.int64)
    drawn = [seeds.seed("availability", name) % int(n) for name, n in zip(ids, days, strict=True)]
    return np.array(drawn, dtype=np.float64) * _DAY_S


def _connections(
    devices: DeviceTable,
    table: BandwidthTable,
    defaults: Mapping[str, ClassDefaults],
    options: FleetOptions,
) -> tuple[Connections, int]:
    """Connect each device to a trace of the library; those that name none draw one and an offset."""
    seeds = Seeds(options.seed)
    trace, drawn = _traces(devices, table, seeds)
    periods = np.array([entry.down.period_s or 0.0 for entry in table.traces])
    offset = np.where(
        np.isnan(devices.numbers["bandwidth_offset_s"]), 0.0, devices.numbers["bandwidth_offset_s"]
    )
    for k in drawn:
        if np.isnan(devices.numbers["bandwidth_offset_s"][k]):
            offset[k] = seeds.seed("offset", devices.ids[k]) / _UNIFORM * periods[trace[k]]
    own_scale = devices.numbers["bandwidth_scale"]
    latency = np.array(
        [
            _latency(table.traces[t].latency_s, defaults.get(name), options.latency_s)
            for t, name in zip(trace.tolist(), devices.classes, strict=True)
        ]
    )
    connections = Connections(
        library=table.traces,
        trace=trace,
        offset_s=offset + options.start_s,
        scale=np.where(np.isnan(own_scale), 1.0, own_scale) * options.bandwidth_scale,
        down_over_up=_ratios(devices, table, trace, options, seeds),
        latency_s=latency,
    )
    return connections, len(drawn)


def _traces(devices: DeviceTable, table: BandwidthTable, seeds: Seeds) -> tuple[np.ndarray, list[int]]:
    place = {entry.trace_id: k for k, entry in enumerate(table.traces)}
    trace = np.empty(len(devices.ids), dtype=np.int64)
    drawn: list[int] = []
    for k, name in enumerate(devices.bandwidth_ids):
        if not name:
            trace[k] = seeds.seed("bandwidth", devices.ids[k]) % len(table.traces)
            drawn.append(k)
        elif name in place:
            trace[k] = place[name]
        else:
            expected = f'a trace of {table.origin.path}, got "{name}"'
            _fail(devices, k, "bandwidth_id", expected, "fix the name or add the trace")
    return trace, drawn


def _latency(measured_s: float | None, default: ClassDefaults | None, otherwise_s: float) -> float:
    if measured_s is not None:
        return measured_s
    if default is not None and default.latency_s is not None:
        return default.latency_s
    return otherwise_s


def _ratios(
    devices: DeviceTable, table: BandwidthTable, trace: np.ndarray, options: FleetOptions, seeds: Seeds
) -> np.ndarray:
    """Downlink over uplink per device, drawn where the trace has no uplink."""
    model = RATIO_MODELS.get(options.network_family)
    if model is None:
        raise TraceError(
            f'network_family: expected one of {", ".join(RATIO_MODELS)}, got "{options.network_family}"'
        )
    normal = NormalDist(model.ln_mean, model.ln_sd)
    ratios = np.ones(len(trace))
    unmeasured = np.array([entry.up is None for entry in table.traces])
    for k in np.flatnonzero(unmeasured[trace]).tolist():
        uniform = (seeds.seed("uplink", devices.ids[k]) + 0.5) / _UNIFORM
        ratios[k] = np.exp(normal.inv_cdf(min(uniform, 1 - 1e-16)))
    return ratios


def _state_rows(devices: DeviceTable, table: StateTable | None) -> tuple[np.ndarray, int]:
    if table is None:
        return np.full(len(devices.ids), -1), 0
    place = {name: k for k, name in enumerate(table.ids)}
    rows = np.array([place.get(name, -1) for name in devices.ids], dtype=np.int64)
    return rows, len(table.ids) - int((rows >= 0).sum())
