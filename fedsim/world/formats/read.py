"""Which kind of trace is a file, and what does it say? The header decides, or the user; not the name."""

from collections.abc import Callable
from pathlib import Path

from fedsim.errors import TraceError
from fedsim.world.formats import availability, bandwidth, devices, state
from fedsim.world.formats.records import Kind, Mode, Record
from fedsim.world.formats.sidecar import read_sidecar
from fedsim.world.formats.table import printable, read_table

_READERS: dict[Kind, Callable[[Path | str, Mode], Record]] = {
    "availability": lambda path, mode: availability.read_availability(path, mode=mode),
    "bandwidth": lambda path, mode: bandwidth.read_bandwidth(path, mode=mode),
    "devices": lambda path, mode: devices.read_devices(path, mode=mode),
    "state": lambda path, mode: state.read_state(path, mode=mode),
}
_HEADERS: dict[Kind, tuple[str, ...]] = {
    "availability": availability.REQUIRED,
    "bandwidth": bandwidth.REQUIRED,
    "state": state.REQUIRED,
}


def read_trace(path: Path | str, kind: Kind | None = None, *, mode: Mode = "normal") -> Record:
    """Read and check a trace file of any of the four kinds.

    Args:
        path: The file; ``.gz`` is unpacked.
        kind: Which kind; default: what the sidecar says, else what the header says.
        mode: ``lenient`` drops rows it cannot read, ``strict`` refuses rows it would mend.

    Raises:
        TraceError: For the first thing that is wrong, with file, line and the way out.
    """
    return _READERS[kind or read_sidecar(path).kind or _kind_of(path)](path, mode)


def _kind_of(path: Path | str) -> Kind:
    table = read_table(path, "lenient")
    found = set(table.frame.columns)
    for kind, required in _HEADERS.items():
        if found.issuperset(required):
            return kind
    if "device_id" in found and found.intersection(devices.SPEEDS):
        return "devices"
    raise TraceError(
        f"{path}:{table.header_line}: expected the header of availability (device_id,start_s,end_s), "
        "bandwidth (trace_id,time_s,down_mbps), devices (device_id,compute_gflops) or state "
        f"(device_id,time_s,key,value), "
        f"found {printable(', '.join(table.frame.columns))}; add the missing ones or set kind in {path}.toml"
    )
