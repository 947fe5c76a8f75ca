"""How is ``devices.csv`` read? One row per device; empty cells mean the default of the device's class."""

from pathlib import Path

import numpy as np

from fedsim.errors import TraceError
from fedsim.world.formats.columns import NumberRule, read_ids, read_numbers
from fedsim.world.formats.records import DeviceTable, Mode, Origin
from fedsim.world.formats.sidecar import read_sidecar
from fedsim.world.formats.table import Table, read_table, require_columns

REQUIRED = ("device_id",)
SPEEDS = ("compute_gflops", "train_tokens_per_s")
RULES = {
    "mem_available_mib": NumberRule("MiB", optional=True),
    "compute_gflops": NumberRule("GFLOP/s", optional=True, positive=True),
    "train_tokens_per_s": NumberRule("tokens/s", optional=True, positive=True),
    "battery_wh": NumberRule("Wh", optional=True),
    "availability_period_s": NumberRule("seconds", optional=True, positive=True),
    "bandwidth_offset_s": NumberRule("seconds", optional=True),
    "bandwidth_scale": NumberRule("factor", optional=True, positive=True),
    "tz_offset_s": NumberRule("seconds", minimum=-14 * 3600.0, optional=True),
}
_TEXTS = ("device_class", "availability_id", "bandwidth_id", "cell_id")
KNOWN = (*REQUIRED, *_TEXTS, *RULES)


def read_devices(path: Path | str, *, mode: Mode = "normal") -> DeviceTable:
    """Read the fleet.

    Raises:
        TraceError: For the first thing that is wrong, with its line.
    """
    sidecar = read_sidecar(path)
    table = require_columns(read_table(path, mode), REQUIRED, KNOWN)
    if not any(name in table.frame.columns for name in SPEEDS):
        raise TraceError(
            f"{table.path}:{table.header_line}: expected the column compute_gflops or train_tokens_per_s, "
            "found neither; add one"
        )
    table, values = read_numbers(table, RULES)
    codes, ids = read_ids(table, "device_id")
    _check_unique(table, codes, ids)
    texts = {name: _texts(table, name) for name in _TEXTS}
    nothing = np.full(len(codes), np.nan)
    names = tuple(ids[code] for code in codes)
    return DeviceTable(
        ids=names,
        classes=tuple(name or "device" for name in texts["device_class"]),
        numbers={name: values.get(name, nothing) for name in RULES},
        availability_ids=tuple(
            own or name for own, name in zip(texts["availability_id"], names, strict=True)
        ),
        bandwidth_ids=texts["bandwidth_id"],
        cell_ids=texts["cell_id"],
        lines=table.lines,
        origin=Origin(table.path, table.sha256, table.notes, sidecar.source, sidecar.licence),
    )


def _texts(table: Table, column: str) -> tuple[str, ...]:
    """A column of identifiers that may be empty or absent."""
    if column not in table.frame.columns:
        return ("",) * len(table.lines)
    given = (table.frame[column] != "").to_numpy(dtype=bool)
    if given.any():
        read_ids(table.keep(given), column)
    return tuple(str(text) for text in table.frame[column])


def _check_unique(table: Table, codes: np.ndarray, ids: tuple[str, ...]) -> None:
    if len(ids) == len(codes):
        return
    counts = np.bincount(codes)
    first_seen: set[int] = set()
    for row, code in enumerate(codes.tolist()):
        if counts[code] > 1 and code in first_seen:
            table.fail(row, "device_id", "an identifier that occurs once", "rename or remove one of the rows")
        first_seen.add(code)
