"""How does a column of text become numbers or identifiers? Vectorised, exact about the first wrong cell."""

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fedsim.errors import TraceError
from fedsim.world.formats.sidecar import Sidecar
from fedsim.world.formats.table import Table

_ID = re.compile(r"[A-Za-z0-9._:][A-Za-z0-9._:-]{0,63}")
_EPOCH_S = 1e9
_LARGEST = 1e15
_TEN_YEARS_S = 10 * 365.25 * 86400
_REREAD = "fix the value or read with --lenient"


@dataclass(frozen=True, slots=True)
class NumberRule:
    """What a numeric column may hold.

    Args:
        unit: For the message, for instance ``Mbit/s``.
        minimum: Smallest allowed value, None for any.
        optional: Whether an empty cell means "not given"; it is read as NaN.
        positive: Whether 0 is refused too.
    """

    unit: str
    minimum: float | None = 0.0
    optional: bool = False
    positive: bool = False

    @property
    def expected(self) -> str:
        """What a message says is expected."""
        if self.minimum is None:
            return f"a number ({self.unit})"
        return f"a number {'>' if self.positive else '>='} {self.minimum:g} ({self.unit})"

    def refuses(self, values: np.ndarray) -> np.ndarray:
        """Return which finite values are out of range."""
        # Nothing that a trace holds is so large; what is would overflow when it is scaled or summed.
        outside: np.ndarray = np.abs(values) > _LARGEST
        if self.minimum is not None:
            outside |= values <= self.minimum if self.positive else values < self.minimum
        return outside


def read_numbers(table: Table, rules: dict[str, NumberRule]) -> tuple[Table, dict[str, np.ndarray]]:
    """Read the columns that are there as numbers.

    Returns:
        The table without rows that a lenient reading drops, and the values by column.

    Raises:
        TraceError: For the first cell that is not a finite number, or is out of range.
    """
    present = {name: rule for name, rule in rules.items() if name in table.frame.columns}
    values = {name: _floats(table.frame[name]) for name in present}
    unread = np.zeros(len(table.lines), dtype=bool)
    for name, rule in present.items():
        wrong = ~np.isfinite(values[name])
        if rule.optional:
            wrong &= (table.frame[name] != "").to_numpy(dtype=bool)
        if wrong.any() and table.mode != "lenient":
            table.fail(int(np.argmax(wrong)), name, rule.expected, _REREAD)
        unread |= wrong
        outside = ~wrong & rule.refuses(values[name])
        if outside.any():
            row = int(np.argmax(outside))
            too_large = f", up to {_LARGEST:g}" if abs(values[name][row]) > _LARGEST else ""
            table.fail(row, name, f"{rule.expected}{too_large}", "fix the value")
    if not unread.any():
        return table, values
    kept = table.keep(~unread).noted(f"dropped {int(unread.sum())} rows that are not numbers")
    if len(kept.lines) == 0:
        raise TraceError(
            f"{table.path}:{table.header_line}: expected rows of numbers, found none; fix the file"
        )
    return kept, {name: column[~unread] for name, column in values.items()}


def _floats(column: pd.Series) -> np.ndarray:
    """Convert text to numbers, NaN where it is none."""
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    # Spellings of truth are no numbers here, whatever the converter thinks of them.
    return np.asarray(numbers)


def read_ids(table: Table, column: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return for each row the index of its identifier, and the sorted identifiers.

    Raises:
        TraceError: If one does not match the pattern, which also keeps spreadsheet formulas out.
    """
    codes, found = pd.factorize(table.frame[column].astype(str), sort=True)
    for code, name in enumerate(found):
        if not _ID.fullmatch(str(name)):
            row = int(np.argmax(codes == code))
            expected = "an identifier of 1 to 64 letters, digits or . _ : - (not - in front)"
            table.fail(row, column, expected, "rename it")
    return np.asarray(codes, dtype=np.int64), tuple(str(name) for name in found)


def read_choices(table: Table, column: str, choices: tuple[str, ...]) -> np.ndarray:
    """Return for each row the index of its choice."""
    codes = pd.Index(choices).get_indexer(pd.Index(table.frame[column].astype(str)))
    if (codes < 0).any():
        table.fail(int(np.argmax(codes < 0)), column, f"one of {', '.join(choices)}", "fix the value")
    return np.asarray(codes)


def relative_times(table: Table, column: str, times: np.ndarray, sidecar: Sidecar) -> np.ndarray:
    """Return times from the start of the trace, also when the file counts from 1970.

    Raises:
        TraceError: If the times count from 1970 and no sidecar says when the trace starts.
    """
    absolute = times > _EPOCH_S
    if not absolute.any():
        return times
    row = int(np.argmax(absolute))
    if sidecar.start_s is None:
        expected = "seconds from the start of the trace, not Unix time"
        table.fail(row, column, expected, f"subtract the start, or set start_utc in {table.path}.toml")
    relative = times - sidecar.start_s
    if (relative < 0).any():
        table.fail(int(np.argmax(relative < 0)), column, "a time after start_utc", "set an earlier start_utc")
    return relative


def note_long_times(table: Table, times: np.ndarray) -> Table:
    """Note times so long that they are probably in another unit."""
    far = int((times > _TEN_YEARS_S).sum())
    return table.noted(f"unit? {far} times beyond ten years; are they milliseconds?", when=far > 0)
