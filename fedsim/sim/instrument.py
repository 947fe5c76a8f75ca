"""Who may watch? Observers see each line of the record as it is made, and cannot steer."""

from collections.abc import Mapping
from typing import Protocol


class Instrument(Protocol):
    """Sees everything, changes nothing."""

    def observe(self, time_s: float, event: str, fields: Mapping[str, object]) -> None:
        """Take note of one line of the record.

        Args:
            time_s: Virtual time, never falling.
            event: What happened.
            fields: Plain values: numbers, words, lists and mappings of them.
        """
        ...
