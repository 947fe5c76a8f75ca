"""Where in an input is a value, and is it a number of the right size? Errors name path, line and column."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

from fedsim.errors import TraceError

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_SHOWN = 40
_CHECK_UNIT = "check the unit and the format"


@dataclass(frozen=True, slots=True)
class Range:
    """Which numbers make sense for a quantity.

    Args:
        unit: For the message, for instance ``Mbit/s``.
        low: Smallest value.
        high: Largest value; more is taken for a mistaken unit.
        way_out: What to do about a value outside.
    """

    unit: str
    low: float
    high: float
    way_out: str = _CHECK_UNIT

    @property
    def expected(self) -> str:
        """What a message says is expected."""
        return f"a number from {self.low:g} to {self.high:g} ({self.unit})"


@dataclass(frozen=True, slots=True)
class Place:
    """A line of an input file."""

    path: Path
    line: int

    def wrong(self, column: str, expected: str, found: object, way_out: str) -> TraceError:
        """Return the error for one value; the caller raises it."""
        # What a file says is shown as one short printable line, whatever it holds.
        shown = ascii(found)[1:-1] if isinstance(found, str) else ascii(found)
        shown = shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "..."
        return TraceError(
            f'{self.path}:{self.line}: {column}: expected {expected}, found "{shown}"; {way_out}'
        )

    def number(self, column: str, text: str, allowed: Range) -> float:
        """Read a decimal number; neither NaN nor infinity nor grouping signs are numbers here.

        Raises:
            TraceError: If it is none, or outside the range.
        """
        if not _NUMBER.fullmatch(text):
            raise self.wrong(column, allowed.expected, text, _CHECK_UNIT)
        return self.within(column, float(text), allowed)

    def within(self, column: str, value: object, allowed: Range) -> float:
        """Check a number that is already one, for instance from JSON.

        Raises:
            TraceError: If it is none, or outside the range.
        """
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not allowed.low <= value <= allowed.high:  # type: ignore[operator]
            raise self.wrong(column, allowed.expected, value, allowed.way_out)
        number = float(value)  # type: ignore[arg-type]
        if not math.isfinite(number):  # pragma: no cover - every range is finite
            raise self.wrong(column, allowed.expected, value, allowed.way_out)
        return number

    def integer(self, column: str, text: str, allowed: Range) -> int:
        """Read a whole number.

        Raises:
            TraceError: If it is none, or outside the range.
        """
        number = self.number(column, text, allowed)
        if number != int(number):
            raise self.wrong(column, f"a whole number ({allowed.unit})", text, allowed.way_out)
        return int(number)
