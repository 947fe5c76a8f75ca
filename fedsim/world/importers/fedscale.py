"""FedScale: when are clients online, and how fast do they compute and communicate?

Both files come as pickle or as JSON of the same content.

Source:
    Lai et al., "FedScale: Benchmarking Model and System Performance of Federated Learning at Scale", ICML
    2022.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedsim.world.importers.intervals import Interval, Window, online_rows
from fedsim.world.importers.jsonstream import read_entries
from fedsim.world.importers.pickles import read_pickle
from fedsim.world.importers.place import Place, Range
from fedsim.world.importers.rows import Choices, Count, DeviceRow, Inputs, Items, RateRow
from fedsim.world.importers.text import opened

LINK_ID = "fedscale-1mbps"
PHONE_CLASS = "phone-mid"
_REFERENCE_MS = 44.0
_REFERENCE_GFLOPS = 60.0
_CLASSES = ((35.0, "phone-low"), (78.0, "phone-mid"))
_HIGHEST_CLASS = "phone-high"
_TIME = Range("seconds", 0, 366 * 86_400, "are these milliseconds?")
_PERIOD = Range("seconds", 1, 366 * 86_400, "are these milliseconds?")
_COMPUTATION = Range("milliseconds per sample", 0.01, 1e5)
_COMMUNICATION = Range("kbit/s", 0.1, 1e8, "are these bit/s?")
_AVAILABILITY = frozenset(("active", "inactive", "finish_time"))
_CAPACITY = frozenset(("computation", "communication"))
Entry = tuple[Place, str, dict[str, Any]]


def read(inputs: Inputs, choices: Choices) -> Items:
    """Yield stays, devices, and one link of 1 Mbit/s that each device scales to its own rate.

    FedScale's rate is one number for both directions. Its computing time is relative: the median phone of the
    published set (44 ms) is taken to train at 60 GFLOP/s, the default of the class phone-mid.

    Args:
        inputs: Availability files, capacity files, or both; of both, clients that occur in both are kept.
        choices: Only ``merge_gap_s`` has an effect.

    Raises:
        TraceError: For the first thing that is wrong.
    """
    periods: dict[str, float] = {}
    capacities: dict[str, tuple[float, float]] = {}
    for source in inputs:
        for place, client, entry in _entries(source.path):
            if entry.keys() >= _AVAILABILITY:
                period_s = _within(place, client, "finish_time", entry["finish_time"], _PERIOD)
                _once(place, client, periods)
                periods[client] = period_s
                stays = _stays(place, client, entry)
                yield from online_rows(Window(client, period_s), stays, choices.merge_gap_s or 0.0)
            elif entry.keys() >= _CAPACITY:
                _once(place, client, capacities)
                capacities[client] = _capacity(place, client, entry)
            else:
                expected = "active, inactive, finish_time, or computation, communication"
                raise place.wrong(client, expected, ", ".join(map(str, entry)), "check the format")
    yield from _devices(periods, capacities)


def _once(place: Place, client: str, seen: dict[str, Any]) -> None:
    if client in seen:
        raise place.wrong(client, "a client that occurs once", client, "give each file once")


def _entries(path: Path) -> Iterator[Entry]:
    with opened(path) as stream:
        is_json = stream.read(4).removeprefix(b"\xef\xbb\xbf")[:1] in b" \t\r\n{"
    for place, key, entry in read_entries(path, "{") if is_json else _pickled(path):
        if not str(key).isdecimal() or not str(key).isascii():
            raise place.wrong("client", "a whole number", str(key), "check the format")
        if not isinstance(entry, dict):
            raise place.wrong(f"client {key}", "a dict", type(entry).__name__, "check the format")
        yield place, f"fedscale-{int(str(key)):06d}", entry


def _pickled(path: Path) -> Iterator[tuple[Place, Any, Any]]:
    content = read_pickle(path)
    place = Place(path, 1)
    if not isinstance(content, dict):
        raise place.wrong("pickle", "a dict of clients", type(content).__name__, "check the format")
    for key, entry in content.items():
        yield place, key, entry


def _within(place: Place, client: str, column: str, value: object, allowed: Range) -> float:
    return place.within(f"{client}.{column}", value, allowed)


def _stays(place: Place, client: str, entry: dict[str, Any]) -> list[Interval]:
    active, inactive = entry["active"], entry["inactive"]
    if not isinstance(active, list) or not isinstance(inactive, list) or len(active) != len(inactive):
        raise place.wrong(f"{client}.inactive", "as many ends as beginnings", inactive, "check the download")
    stays = []
    for start, end in zip(active, inactive, strict=True):
        start_s = _within(place, client, "active", start, _TIME)
        end_s = _within(place, client, "inactive", end, _TIME)
        if end_s < start_s:
            raise place.wrong(f"{client}.inactive", f"an end after {start_s:g}", end, "check the download")
        stays.append((start_s, end_s))
    return stays


def _capacity(place: Place, client: str, entry: dict[str, Any]) -> tuple[float, float]:
    ms = _within(place, client, "computation", entry["computation"], _COMPUTATION)
    kbps = _within(place, client, "communication", entry["communication"], _COMMUNICATION)
    return _REFERENCE_GFLOPS * _REFERENCE_MS / ms, kbps / 1000.0


def _devices(periods: dict[str, float], capacities: dict[str, tuple[float, float]]) -> Items:
    if not capacities:
        yield Count(f"devices get the class {PHONE_CLASS}; import the capacity file with it", len(periods))
        for client, period_s in periods.items():
            yield DeviceRow(client, PHONE_CLASS, availability_period_s=period_s)
        return
    yield RateRow(LINK_ID, 0.0, 1.0, 1.0)
    what = (
        f"speeds taken as {_REFERENCE_GFLOPS:g} GFLOP/s * {_REFERENCE_MS:g} ms / computation, an assumption"
    )
    chosen = [client for client in capacities if not periods or client in periods]
    yield Count(what, len(chosen))
    yield Count("capacities of clients without availability dropped", len(capacities) - len(chosen))
    for client in chosen:
        gflops, mbps = capacities[client]
        yield DeviceRow(client, _class(gflops), gflops, periods.get(client), LINK_ID, mbps)
    bare = [client for client in periods if client not in capacities]
    yield Count(f"devices without a capacity get the class {PHONE_CLASS}", len(bare))
    for client in bare:
        yield DeviceRow(client, PHONE_CLASS, None, periods[client], LINK_ID)


def _class(gflops: float) -> str:
    return next((name for below, name in _CLASSES if gflops < below), _HIGHEST_CLASS)
