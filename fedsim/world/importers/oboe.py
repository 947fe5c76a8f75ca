"""Oboe: at what rate did each chunk of a video arrive?

Source:
    Akhtar et al., "Oboe: Auto-tuning Video ABR Algorithms to Network Conditions", SIGCOMM 2018.
"""

from collections.abc import Iterator

from fedsim.errors import TraceError
from fedsim.world.importers.place import Place, Range
from fedsim.world.importers.rows import Choices, Count, Inputs, Items, NamedPath, RateRow
from fedsim.world.importers.text import read_lines
from fedsim.world.importers.two_column import two_numbers

_KBPS = Range("kbit/s", 0, 1e6, "are these bit/s?")
_TIME = Range("milliseconds", 0, 30 * 86_400_000, "are these microseconds?")
_MS = 1000.0
Chunk = tuple[float, float, float]


def read(inputs: Inputs, choices: Choices) -> Items:
    """Yield the traces; between two chunks nothing was measured, so the cell stays empty.

    Args:
        inputs: Files of pairs of lines ``milliseconds kbit/s``: beginning and end of a chunk, with one rate.
        choices: Without effect.

    Raises:
        TraceError: For the first thing that is wrong, with its line.
    """
    del choices
    for source in inputs:
        yield from _trace(source)


def _trace(source: NamedPath) -> Items:
    begin_ms: float | None = None
    end_ms, moving, pauses = 0.0, False, 0
    for start_ms, stop_ms, mbps in _chunks(source):
        begin_ms = start_ms if begin_ms is None else begin_ms
        if end_ms and start_ms > end_ms:
            pauses += 1
            yield RateRow(source.name, (end_ms - begin_ms) / _MS, None)
        yield RateRow(source.name, (start_ms - begin_ms) / _MS, mbps)
        end_ms, moving = stop_ms, moving or mbps > 0
    if not moving:
        raise TraceError(f"{source.path}: expected some rate above 0, found none; remove the file")
    yield RateRow(source.name, (end_ms - (begin_ms or 0.0)) / _MS, None)
    yield Count("pauses between two chunks left empty, since nothing was measured", pauses)


def _chunks(source: NamedPath) -> Iterator[Chunk]:
    first: tuple[float, float] | None = None
    place, last_ms = Place(source.path, 1), 0.0
    for place, line in read_lines(source.path):
        time_ms, kbps = two_numbers(place, line, _TIME, _KBPS)
        if time_ms < last_ms:
            raise place.wrong("time", f"a time not before {last_ms:g}", line, "check the download")
        last_ms = time_ms
        if first is None:
            first = (time_ms, kbps)
            continue
        if kbps != first[1]:
            raise place.wrong("rate", f"{first[1]:g} again, the rate of the chunk", line, "check the format")
        if time_ms > first[0]:
            yield first[0], time_ms, kbps / 1000
        first = None
    if first is not None:
        raise place.wrong("line", "pairs of lines", "a beginning without an end", "check the download")
