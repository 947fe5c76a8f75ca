"""Pensieve's form, lines of ``seconds Mbit/s``: FCC fixed lines each 5 s, Puffer sessions at any time.

Source:
    Mao, Netravali, Alizadeh, "Neural Adaptive Video Streaming with Pensieve", SIGCOMM 2017; Yan et al.,
    "Learning in situ: a randomized experiment in video streaming", NSDI 2020.
"""

from fedsim.world.importers.rows import Choices, Inputs, Items
from fedsim.world.importers.two_column import read_two_columns

HIGH_MBPS = 10_000.0


def read(inputs: Inputs, choices: Choices) -> Items:
    """Yield the traces; a step of 10 times the median, and of more than 5 s, is a gap.

    Raises:
        TraceError: For the first thing that is wrong, with its line.
    """
    del choices
    for source in inputs:
        yield from read_two_columns(source, HIGH_MBPS)
