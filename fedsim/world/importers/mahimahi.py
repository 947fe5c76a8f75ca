"""mahimahi: at which milliseconds could a packet of 1500 bytes pass?

Source:
    Netravali et al., "Mahimahi: Accurate Record-and-Replay for HTTP", USENIX ATC 2015.
"""

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from fedsim.errors import TraceError
from fedsim.world.importers.place import Range
from fedsim.world.importers.rows import Choices, Count, Inputs, Items, NamedPath, RateRow
from fedsim.world.importers.text import read_lines

BIN_S = 1.0
_PACKET_MBIT = 1500 * 8 / 1e6
_TIME = Range("milliseconds", 0, 30 * 86_400_000, "are these microseconds?")
_UP, _DOWN = ".up", ".down"


def read(inputs: Inputs, choices: Choices) -> Items:
    """Yield one trace for each pair ``name.down``, ``name.up``; a file of another name is a downlink.

    Packets are counted in bins; a bin without any is an outage. A pair ends where its shorter file does, and
    the last bin, which the recording fills only in part, is left out.

    Args:
        inputs: Files with one whole number of milliseconds per line.
        choices: ``bin_s`` is the width of a bin, 1 s.

    Raises:
        TraceError: For the first thing that is wrong, with its line.
    """
    bin_s = choices.bin_s or BIN_S
    for name, down, up in _pairs(inputs):
        yield from _trace(name, down, up, bin_s)


def trace_name(path: Path) -> str:
    """Return the name that the two files of a pair share."""
    return path.name.removesuffix(_UP).removesuffix(_DOWN)


def _pairs(inputs: Inputs) -> list[tuple[str, Path, Path | None]]:
    ups = {source.path.with_suffix(""): source for source in inputs if source.path.suffix == _UP}
    pairs: list[tuple[str, Path, Path | None]] = []
    for source in inputs:
        if source.path.suffix != _UP:
            up = ups.pop(_stem(source), None)
            pairs.append((source.name, source.path, up.path if up else None))
    if ups:
        alone = next(iter(ups.values())).path
        raise TraceError(f"{alone}: expected {alone.stem}{_DOWN} beside it, found none; give both files")
    return pairs


def _stem(source: NamedPath) -> Path:
    return source.path.with_suffix("") if source.path.suffix == _DOWN else source.path


def _trace(name: str, down: Path, up: Path | None, bin_s: float) -> Items:
    unknown: Iterator[float] = iter(())
    rates = zip_longest(_rates(down, bin_s), _rates(up, bin_s) if up else unknown)
    seen = [False, up is None]
    number = clipped = 0
    for down_mbps, up_mbps in rates:
        if down_mbps is None or (up_mbps is None and up is not None):
            clipped += 1
            continue
        seen = [seen[0] or down_mbps > 0, seen[1] or bool(up_mbps)]
        yield RateRow(name, round(number * bin_s, 6), down_mbps, up_mbps)
        number += 1
    for path, moving in zip((down, up), seen, strict=True):
        if not moving:
            raise TraceError(
                f"{path}: expected packets in at least one whole bin of {bin_s:g} s, found none; "
                "give a smaller --bin or remove the file"
            )
    yield Count(f"bins of {bin_s:g} s clipped where the other direction ends", clipped)
    yield Count(f"bins of {bin_s:g} s, the last of each file, left out because they are not full")
    if up is None:
        yield Count("downlinks without an uplink beside them")


def _rates(path: Path, bin_s: float) -> Iterator[float]:
    """Yield Mbit/s bin by bin; nothing but the current bin is held."""
    current, packets, last_ms = 0, 0, 0.0
    for place, line in read_lines(path):
        time_ms = place.integer("milliseconds", line, _TIME)
        if time_ms < last_ms:
            raise place.wrong("milliseconds", f"a time not before {last_ms:g}", line, "sort the file")
        last_ms = time_ms
        index = int(time_ms / 1000.0 / bin_s)
        while current < index:
            yield packets * _PACKET_MBIT / bin_s
            current, packets = current + 1, 0
        packets += 1
