"""How are recordings of a moving phone read? The Norway and Ghent collections share two forms.

The log has lines ``epoch ms lat lon bytes ms_elapsed``; the player sabre ships the same recordings as JSON.
"""

from collections.abc import Iterator
from pathlib import Path

from fedsim.world.importers.jsonstream import read_entries
from fedsim.world.importers.pieces import GAP_S, Sample, piece_rows
from fedsim.world.importers.place import Place, Range
from fedsim.world.importers.rows import Count, Items, NamedPath
from fedsim.world.importers.text import opened, read_lines

_COLUMNS = 6
_CLOCK = Range("milliseconds", 0, 4e12)
_BYTES = Range("bytes", 0, 1e12)
_ELAPSED = Range("milliseconds", 0, 366 * 86_400_000, "are these microseconds?")
_LATITUDE = Range("degrees", -90, 90, "check the order of the columns")
_LONGITUDE = Range("degrees", -180, 180, "check the order of the columns")


def is_json(path: Path) -> bool:
    """Say whether the file holds a JSON array."""
    with opened(path) as stream:
        return stream.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["


def read_sabre(source: NamedPath, high_mbps: float) -> Items:
    """Yield the rows of a list of ``{duration_ms, bandwidth_kbps, latency_ms}``.

    The latency is a constant that sabre put in, so it is left out. An entry without any byte that lasts
    longer than 5 s is a gap in the measurement.

    Raises:
        TraceError: If an entry is of another form, or a rate is larger than `high_mbps`.
    """
    yield from piece_rows(source.name, _sabre_samples(source.path, high_mbps))


def _sabre_samples(path: Path, high_mbps: float) -> Iterator[Sample | Count]:
    rate = Range("kbit/s", 0, high_mbps * 1000, "are these bit/s?")
    duration = Range("milliseconds", 0, 366 * 86_400_000, "are these microseconds?")
    now_s = 0.0
    for place, _, entry in read_entries(path, "["):
        if not isinstance(entry, dict) or "duration_ms" not in entry or "bandwidth_kbps" not in entry:
            found = entry if isinstance(entry, str) else type(entry).__name__
            raise place.wrong("entry", "duration_ms and bandwidth_kbps", found, "check the format")
        length_s = place.within("duration_ms", entry["duration_ms"], duration) / 1000
        mbps = place.within("bandwidth_kbps", entry["bandwidth_kbps"], rate) / 1000
        if length_s == 0:
            yield Count("samples of zero length dropped")
            continue
        yield None if mbps == 0 and length_s > GAP_S else (now_s, mbps)
        now_s = round(now_s + length_s, 6)


def read_log(source: NamedPath, high_mbps: float) -> Items:
    """Yield the rows of an original log; each line says how many bytes came in the time before it.

    Raises:
        TraceError: If a line is of another form, or a rate is larger than `high_mbps`.
    """
    yield from piece_rows(source.name, _log_samples(source.path, high_mbps))


def _log_samples(path: Path, high_mbps: float) -> Iterator[Sample | Count]:
    last_s, last_end_s = -1.0, None
    for place, line in read_lines(path):
        end_s, length_s, mbps = _log_line(place, line.split(), high_mbps)
        start_s = round(end_s - length_s, 6)
        if length_s == 0:
            yield Count("samples of zero length dropped")
            continue
        if start_s <= last_s:
            yield Count("samples that repeat a time or go back dropped")
            continue
        if last_end_s is not None and start_s - last_end_s > GAP_S:
            yield None
        yield None if mbps == 0 and length_s > GAP_S else (start_s, mbps)
        last_s, last_end_s = start_s, end_s


def _log_line(place: Place, fields: list[str], high_mbps: float) -> tuple[float, float, float]:
    if len(fields) != _COLUMNS:
        found = f"{len(fields)} columns"
        raise place.wrong("line", "epoch ms lat lon bytes ms_elapsed", found, "check the format")
    place.number("epoch", fields[0], _CLOCK)
    end_s = place.number("ms", fields[1], _CLOCK) / 1000
    place.number("lat", fields[2], _LATITUDE)
    place.number("lon", fields[3], _LONGITUDE)
    size_bytes = place.number("bytes", fields[4], _BYTES)
    length_s = place.number("ms_elapsed", fields[5], _ELAPSED) / 1000
    mbps = size_bytes * 8 / length_s / 1e6 if length_s else 0.0
    place.within("bytes", mbps, Range("Mbit/s", 0, high_mbps, "check the units of bytes and ms_elapsed"))
    return end_s, length_s, mbps
