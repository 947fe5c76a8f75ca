"""Lumos5G: what did a phone receive over mmWave 5G and 4G in Minneapolis, one sample per second?

Source:
    Narayanan et al., "Lumos5G: Mapping and Predicting Commercial mmWave 5G Throughput", IMC 2020; this cut is
    from "A Variegated Look at 5G in the Wild", SIGCOMM 2021.
"""

from fedsim.world.importers.rows import Choices, Inputs, Items
from fedsim.world.importers.two_column import read_two_columns

HIGH_MBPS = 10_000.0
_GAP_S = 5.0


def read(inputs: Inputs, choices: Choices) -> Items:
    """Yield the traces of files with lines ``seconds Mbit/s``.

    Raises:
        TraceError: For the first thing that is wrong, with its line.
    """
    del choices
    for source in inputs:
        yield from read_two_columns(source, HIGH_MBPS, _GAP_S)
