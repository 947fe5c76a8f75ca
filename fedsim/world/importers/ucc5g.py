"""UCC 5G: what did a phone receive from an Irish operator, standing and driving?

Source:
    Raca et al., "Beyond Throughput, The Next Generation: a 5G Dataset with Channel and Context Metrics",
    MMSys 2020.
"""

import csv
from collections.abc import Iterator
from datetime import datetime

from fedsim.world.importers.pieces import piece_rows, with_gaps
from fedsim.world.importers.place import Place, Range
from fedsim.world.importers.rows import Choices, Count, Inputs, Items, NamedPath
from fedsim.world.importers.text import read_lines

_TIME, _RATE = "Timestamp", "DL_bitrate"
_TIME_FORMAT = "%Y.%m.%d_%H.%M.%S"
_KBPS = Range("kbit/s", 0, 1e7, "are these bit/s?")
_MISSING = ("-", "")


def read(inputs: Inputs, choices: Choices) -> Items:
    """Yield the downlink of G-NetTrack logs; of samples in the same second the largest counts.

    The uplink column is left out: while a download runs it holds acknowledgements, not capacity.

    Raises:
        TraceError: For the first thing that is wrong, with its line.
    """
    del choices
    for source in inputs:
        counts: dict[str, int] = {}
        yield from piece_rows(source.name, with_gaps(_seconds(source, counts)))
        yield from (Count(what, number) for what, number in counts.items())


def _seconds(source: NamedPath, counts: dict[str, int]) -> Iterator[tuple[float, float]]:
    """Yield each second once, with its largest rate."""
    second: float | None = None
    most = 0.0
    begin: datetime | None = None
    for place, instant, mbps in _samples(source, counts):
        begin = begin or instant
        now_s = (instant - begin).total_seconds()
        if second is not None and now_s < second:
            raise place.wrong(_TIME, "a time not before the last", str(instant), "sort the file")
        if second is not None and now_s > second:
            yield second, most
            most = 0.0
        elif second is not None:
            _add(counts, "samples of the same second merged to the largest")
        second, most = now_s, max(most, mbps)
    if second is not None:
        yield second, most


def _samples(source: NamedPath, counts: dict[str, int]) -> Iterator[tuple[Place, datetime, float]]:
    lines = read_lines(source.path)
    place, header = next(lines)
    names = [name.strip() for name in header.split(",")]
    for name in (_TIME, _RATE):
        if names.count(name) != 1:
            raise place.wrong("header", f"the column {name} once", header, "check the format")
    time_at, rate_at = names.index(_TIME), names.index(_RATE)
    for where, line in lines:
        fields = _fields(where, line)
        if len(fields) != len(names):
            raise where.wrong("line", f"{len(names)} fields", f"{len(fields)} fields", "check the download")
        if fields[rate_at].strip() in _MISSING:
            _add(counts, "samples without a rate dropped")
            continue
        kbps = where.number(_RATE, fields[rate_at].strip(), _KBPS)
        yield where, _instant(where, fields[time_at]), kbps / 1000


def _fields(place: Place, line: str) -> list[str]:
    try:
        return next(csv.reader([line]))
    except csv.Error as error:
        raise place.wrong("line", "one line of CSV", str(error), "check the download") from error


def _instant(place: Place, text: str) -> datetime:
    try:
        return datetime.strptime(text.strip(), _TIME_FORMAT)  # noqa: DTZ007 - only differences matter
    except ValueError:
        raise place.wrong(_TIME, "YYYY.MM.DD_HH.MM.SS", text, "check the format") from None


def _add(counts: dict[str, int], what: str) -> None:
    counts[what] = counts.get(what, 0) + 1
