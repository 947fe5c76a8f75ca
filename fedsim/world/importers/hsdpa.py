"""Norway HSDPA: what did a moving phone receive over 3G?

Source:
    Riiser et al., "Commute Path Bandwidth Traces from 3G Networks: Analysis and Applications", MMSys 2013.
"""

from fedsim.world.importers.drive_log import is_json, read_log, read_sabre
from fedsim.world.importers.rows import Choices, Inputs, Items
from fedsim.world.importers.text import read_lines
from fedsim.world.importers.two_column import read_two_columns

HIGH_MBPS = 100.0
_GAP_S = 5.0


def read(inputs: Inputs, choices: Choices) -> Items:
    """Yield the traces of original logs, of sabre's JSON, or of lines ``seconds Mbit/s``.

    Raises:
        TraceError: For the first thing that is wrong, with its line.
    """
    del choices
    for source in inputs:
        if is_json(source.path):
            yield from read_sabre(source, HIGH_MBPS)
        elif len(next(read_lines(source.path))[1].split()) == 2:
            yield from read_two_columns(source, HIGH_MBPS, _GAP_S)
        else:
            yield from read_log(source, HIGH_MBPS)
