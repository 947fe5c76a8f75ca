"""How do samples become traces? A gap in the measurement ends a trace and another begins.

A gap is not an outage: nothing is known about the rate in it, so nothing is written about it.
"""

from array import array
from collections.abc import Iterable, Iterator
from typing import TypeAlias

from fedsim.world.importers.rows import Count, Items, RateRow

Floats: TypeAlias = "array[float]"
MIN_PIECE_S = 10.0
GAP_S = 5.0
Sample = tuple[float, float] | None
"""Seconds and Mbit/s; None where the measurement pauses."""


def piece_rows(trace_id: str, samples: Iterable[Sample | Count]) -> Items:
    """Yield the rows of one recording, cut at its gaps; every piece begins with 0.

    Pieces without any rate above 0 are dropped, since no transfer would ever end on them; so are pieces of a
    cut recording that are shorter than 10 s, since they would be replayed over and over.
    """
    times, rates = array("d"), array("d")
    number = gaps = 0
    for sample in samples:
        if isinstance(sample, Count):
            yield sample
        elif sample is not None:
            times.append(sample[0])
            rates.append(sample[1])
        elif times:
            gaps += 1
            rows = list(_piece(_numbered(trace_id, number), times, rates, cut=True))
            number += any(isinstance(row, RateRow) for row in rows)
            yield from rows
            times, rates = array("d"), array("d")
    yield from _piece(_numbered(trace_id, number), times, rates, cut=gaps > 0)
    yield Count("gaps in the measurement, which are no outages: recordings split there", gaps)


def _numbered(trace_id: str, number: int) -> str:
    return trace_id if number == 0 else f"{trace_id}.{number + 1}"


def _piece(trace_id: str, times: Floats, rates: Floats, *, cut: bool) -> Items:
    if not times:
        return
    if not any(rates):
        yield Count("recordings or pieces without any rate above 0 dropped")
        return
    if cut and times[-1] - times[0] < MIN_PIECE_S:
        yield Count(f"pieces shorter than {MIN_PIECE_S:g} s dropped")
        return
    begin_s = times[0]
    for time_s, mbps in zip(times, rates, strict=True):
        yield RateRow(trace_id, time_s - begin_s, mbps)


def with_gaps(samples: Iterable[tuple[float, float]], gap_s: float = GAP_S) -> Iterator[Sample]:
    """Yield the samples, and None between two that are further apart than `gap_s`."""
    last_s = None
    for time_s, mbps in samples:
        if last_s is not None and time_s - last_s > gap_s:
            yield None
        last_s = time_s
        yield time_s, mbps
