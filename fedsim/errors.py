"""Every error that fedsim raises on purpose.

::

    FedsimError
    ├── InputError               what the user handed in is wrong; the command exits with 2
    │   ├── ScenarioError        a scenario file or a command-line override
    │   ├── TraceError           a trace file
    │   ├── ModelError           a model, tokenizer, adapter or data set on disk
    │   └── MissingExtraError    an optional package is not installed
    ├── BudgetError              a device cannot carry what it was asked to carry
    ├── TrainingError            local training failed or produced non-finite values
    ├── StorageError             the run directory or the cache cannot be written; free space, then resume
    ├── PeerError                the other side of a connection is gone, or does not keep to the protocol
    ├── SimulationError          the simulated world contradicts itself (a missing duration, time going back)
    └── ProtocolError            an illegal transition of the server: a bug in fedsim

A message says where, what was expected, what was found, and the way out.
"""

import difflib
from collections.abc import Iterable, Sequence


class FedsimError(Exception):
    """Root of every error raised on purpose."""


class InputError(FedsimError):
    """Something the user handed in is wrong. The command line prints it and exits with 2."""


class ScenarioError(InputError):
    """A scenario file, or an override of one of its values, is wrong."""


class TraceError(InputError):
    """A trace file is wrong."""


class ModelError(InputError):
    """A model, tokenizer, adapter or data set on disk is wrong."""


class MissingExtraError(InputError):
    """An optional package is not installed; the message names the command that installs it."""


class BudgetError(FedsimError):
    """A device cannot carry what it was asked to carry."""


class TrainingError(FedsimError):
    """Local training failed or produced non-finite values."""


class StorageError(FedsimError):
    """The run directory, or the cache, cannot be written, say because the disk is full; resume later."""


class PeerError(FedsimError):
    """The other side of a connection is gone, too slow, or does not keep to the protocol."""


class SimulationError(FedsimError):
    """The simulated world contradicts itself."""


class ProtocolError(FedsimError):
    """An illegal transition of the server. Always a bug in fedsim; please report it."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean "..."?`` for a near miss, else an empty string."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f'; did you mean "{found[0]}"?' if found else ""


def not_one_of(word: str, known: Sequence[str]) -> str:
    """Say that a word is none of those that are known, and which it is near."""
    return f'expected one of {", ".join(known)}, got "{word}"{nearest(word, known)}'
