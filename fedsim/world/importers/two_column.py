"""How are lines of ``seconds Mbit/s`` read? Several collections come in this form."""

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedsim.world.importers.pieces import GAP_S, Floats, Sample, piece_rows, with_gaps
from fedsim.world.importers.place import Place, Range
from fedsim.world.importers.rows import Count, Items, NamedPath
from fedsim.world.importers.text import read_lines

_STEPS_PER_GAP = 10.0
_TIME = Range("seconds", 0, 4e9, "are these milliseconds?")
_LONGEST_STEP_S = 60.0


class Series(NamedTuple):
    """Samples of one file: seconds and Mbit/s, and how many repeated a time."""

    path: Path
    times: Floats
    rates: Floats
    repeated: int


def read_two_columns(source: NamedPath, high_mbps: float, gap_s: float | None = None) -> Items:
    """Yield the rows of one file.

    Args:
        source: The file and the name of its trace.
        high_mbps: Larger rates are taken for another unit.
        gap_s: Longer steps are gaps; default: 10 times the median step, at least 5 s.

    Raises:
        TraceError: If a line is not two numbers, a rate is out of range or the time goes back.
    """
    allowed = Range("Mbit/s", 0, high_mbps, "are these kbit/s or bit/s?")
    times, rates, repeated = array("d"), array("d"), 0
    for place, line in read_lines(source.path):
        time_s, mbps = two_numbers(place, line, _TIME, allowed)
        if times and time_s < times[-1]:
            raise place.wrong("time", f"a time not before {times[-1]:g}", line.split()[0], "sort the file")
        if times and time_s == times[-1]:
            repeated += 1
            rates[-1] = mbps
        else:
            times.append(time_s)
            rates.append(mbps)
    series = Series(source.path, times, rates, repeated)
    yield from piece_rows(source.name, _samples(series, gap_s))


def two_numbers(place: Place, line: str, times: Range, rates: Range) -> tuple[float, float]:
    """Read ``time rate`` from one line.

    Raises:
        TraceError: If it is not two numbers in these ranges.
    """
    fields = line.split()
    if len(fields) != 2:
        raise place.wrong("line", "two numbers: time and rate", line, "check the format")
    return place.number("time", fields[0], times), place.number("rate", fields[1], rates)


def _samples(series: Series, gap_s: float | None) -> Iterator[Sample | Count]:
    yield Count("samples that repeat a time dropped", series.repeated)
    step_s = float(np.median(np.diff(series.times))) if len(series.times) > 1 else 1.0
    if step_s > _LONGEST_STEP_S:
        place = Place(series.path, 1)
        raise place.wrong("time", "steps of at most a minute", f"{step_s:g} s", "are these milliseconds?")
    limit_s = max(GAP_S, _STEPS_PER_GAP * step_s) if gap_s is None else gap_s
    yield from with_gaps(zip(series.times, series.rates, strict=True), limit_s)
