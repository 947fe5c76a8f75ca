"""NYU-METS: what did a phone receive over LTE in New York's buses and trains?

Source:
    Mei et al., "Realtime Mobile Bandwidth Prediction Using LSTM Neural Networks", PAM 2019.
"""

from collections.abc import Iterator
from pathlib import Path

from fedsim.world.importers.pieces import Sample, piece_rows
from fedsim.world.importers.place import Range
from fedsim.world.importers.rows import Choices, Count, Inputs, Items
from fedsim.world.importers.text import read_lines

_MBPS_PER = {"bits/sec": 1e-6, "Kbits/sec": 1e-3, "Mbits/sec": 1.0, "Gbits/sec": 1e3}
_VALUE = Range("the unit beside it", 0, 1e10)
_MBPS = Range("Mbit/s", 0, 10_000, "check the unit beside the value")


def read(inputs: Inputs, choices: Choices) -> Items:
    """Yield the traces of files with one line ``value,unit`` per second.

    Raises:
        TraceError: For the first thing that is wrong, with its line.
    """
    del choices
    for source in inputs:
        yield from piece_rows(source.name, _samples(source.path))


def _samples(path: Path) -> Iterator[Sample | Count]:
    for second, (place, line) in enumerate(read_lines(path)):
        value, comma, unit = line.partition(",")
        factor = _MBPS_PER.get(unit.strip())
        if not comma or factor is None:
            expected = f"value,unit with one of {', '.join(_MBPS_PER)}"
            raise place.wrong("unit", expected, line, "check the format")
        mbps = place.within("value", place.number("value", value.strip(), _VALUE) * factor, _MBPS)
        yield float(second), mbps
