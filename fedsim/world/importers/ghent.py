"""Ghent 4G: what did a moving phone receive over LTE, by six means of transport?

Source:
    van der Hooft et al., "HTTP/2-Based Adaptive Streaming of HEVC Video over 4G/LTE Networks", IEEE
    Communications Letters 20(11), 2016.
"""

from fedsim.world.importers.drive_log import is_json, read_log, read_sabre
from fedsim.world.importers.rows import Choices, Inputs, Items

HIGH_MBPS = 1_000.0


def read(inputs: Inputs, choices: Choices) -> Items:
    """Yield the traces of original logs or of sabre's JSON.

    Raises:
        TraceError: For the first thing that is wrong, with its line.
    """
    del choices
    for source in inputs:
        if is_json(source.path):
            yield from read_sabre(source, HIGH_MBPS)
        else:
            yield from read_log(source, HIGH_MBPS)
