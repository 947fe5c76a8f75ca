"""How is a trace file cut into columns of text? Bytes to rows, with the line of each row kept for messages.

It knows CSV and nothing about traces.
"""

import csv
import gzip
import hashlib
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd

from fedsim.errors import MissingExtraError, TraceError
from fedsim.world.formats.records import Mode

_BOM = b"\xef\xbb\xbf"
_SHOWN = 60


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Columns of stripped text.

    Args:
        path: As the user wrote it.
        mode: ``lenient`` drops rows it cannot read, ``strict`` refuses rows it would mend.
        header_line: Line of the header.
        frame: One column of text per name in the header.
        lines: Line of each row.
        sha256: Of the file's bytes.
        notes: What was mended so far.
    """

    path: str
    mode: Mode
    header_line: int
    frame: pd.DataFrame
    lines: np.ndarray
    sha256: str
    notes: tuple[str, ...] = ()

    def fail(self, row: int, column: str, expected: str, way_out: str) -> NoReturn:
        """Raise the error for one cell."""
        shown = printable(str(self.frame[column].iloc[row]))
        raise TraceError(
            f'{self.path}:{self.lines[row]}: {column}: expected {expected}, got "{shown}"; {way_out}'
        )

    def keep(self, rows: np.ndarray) -> "Table":
        """Return the table with only the rows of this mask or in this order."""
        chosen = np.flatnonzero(rows) if rows.dtype == bool else rows
        return replace(self, frame=self.frame.iloc[chosen].reset_index(drop=True), lines=self.lines[chosen])

    def noted(self, note: str, *, when: bool = True) -> "Table":
        """Return the table with one more note."""
        return replace(self, notes=(*self.notes, f"{self.path}: {note}")) if when else self


def read_table(path: Path | str, mode: Mode = "normal") -> Table:
    """Cut a file into columns of text.

    Raises:
        TraceError: If the file is missing, empty, not UTF-8 text, has no usable header, or a row with the
            wrong number of fields.
    """
    stored = _stored_bytes(path)
    if is_parquet(path):
        return _parquet_table(str(path), mode, stored)
    data = _text_bytes(str(path), stored)
    header_line, header = _header(str(path), data)
    rows = _fast_rows(str(path), data, header) if _is_plain(data, header_line) else None
    if rows is None:
        rows = _careful_rows(str(path), data, header_line, header, mode)
    frame, lines, dropped = rows
    if len(frame) == 0:
        raise TraceError(f"{path}:{header_line}: expected rows after the header, found none; add the data")
    table = Table(str(path), mode, header_line, frame, lines, hashlib.sha256(stored).hexdigest())
    return table.noted(f"dropped {dropped} rows with the wrong number of fields", when=dropped > 0)


def is_parquet(path: Path | str) -> bool:
    """Say whether a file is Parquet by its ending, as with ``.gz``."""
    return str(path).endswith(".parquet")


def _parquet_table(path: str, mode: Mode, stored: bytes) -> Table:
    """Read the same columns from Parquet; numbers stay numbers, empty cells become empty text."""
    try:
        from pyarrow import ArrowException, BufferReader, parquet  # noqa: PLC0415 - an optional extra
    except ModuleNotFoundError:
        raise MissingExtraError(
            f'{path}: reading Parquet needs pyarrow; install it: pip install "fedsim-lora[parquet]"'
        ) from None
    try:
        content = parquet.read_table(BufferReader(stored))
    except (ArrowException, OSError):
        raise TraceError(f"{path}: expected a Parquet file, got other bytes; write it again") from None
    names = content.column_names
    if len(set(names)) < len(names):
        raise TraceError(f"{path}:1: expected distinct column names, got {', '.join(names)}; rename one")
    if content.num_rows == 0:
        raise TraceError(f"{path}:1: expected rows after the header, found none; add the data")
    frame = pd.DataFrame({name: _parquet_column(content.column(name).to_pandas()) for name in names})
    lines = np.arange(1, len(frame) + 1)
    return Table(path, mode, 1, frame, lines, hashlib.sha256(stored).hexdigest())


def _parquet_column(column: pd.Series) -> pd.Series:
    numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if numeric and not column.isna().any():
        return column
    empty = column.isna()
    text = ["" if gone else str(value).strip() for value, gone in zip(column, empty, strict=True)]
    return pd.Series(text, dtype=str)


def file_sha256(path: Path | str) -> str:
    """Return the SHA-256 of a file's bytes."""
    return hashlib.sha256(_stored_bytes(path)).hexdigest()


def require_columns(table: Table, required: Sequence[str], known: Sequence[str]) -> Table:
    """Check the header.

    Args:
        table: The table.
        required: Columns that must be there.
        known: All columns that mean something; others are kept as metadata, with one note.

    Raises:
        TraceError: If a required column is missing.
    """
    found = list(table.frame.columns)
    missing = [name for name in required if name not in found]
    if missing:
        raise TraceError(
            f"{table.path}:{table.header_line}: expected the columns {', '.join(required)}, "
            f'"{missing[0]}" is missing (found: {printable(", ".join(found))}); add it to the header'
        )
    extra = [name for name in found if name not in known]
    return table.noted(f"unknown columns kept as metadata: {printable(', '.join(extra))}", when=bool(extra))


def printable(text: str) -> str:
    """Return text from a file such that it fits into one line of a message."""
    shown = "".join(c if c.isprintable() else "?" for c in text[:_SHOWN])
    return shown + "..." if len(text) > _SHOWN else shown


def _stored_bytes(path: Path | str) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise TraceError(f"{path}: expected a trace file, found none; check the path") from None
    except OSError as error:
        raise TraceError(f"{path}: expected a readable trace file, got: {error.strerror}") from None


def _text_bytes(path: str, data: bytes) -> bytes:
    """Unpack, check the encoding, and leave plain line feeds."""
    if path.endswith(".gz"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error):
            raise TraceError(f"{path}: expected gzip data; compress it again or drop .gz") from None
    data = data.removeprefix(_BOM)
    for position, what in ((data.find(b"\0"), "a NUL byte"), (_not_utf8(data), "bytes that are not UTF-8")):
        if position >= 0:
            line = data.count(b"\n", 0, position) + 1
            raise TraceError(f"{path}:{line}: expected UTF-8 text, found {what}; save it as UTF-8 CSV")
    return data.replace(b"\r\n", b"\n") if b"\r\n" in data else data


def _not_utf8(data: bytes) -> int:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start
    return -1


def _header(path: str, data: bytes) -> tuple[int, list[str]]:
    """Return the header's line and its names."""
    lines = enumerate(io.BytesIO(data), start=1)
    line, head = next(
        ((n, text) for n, text in lines if text.strip() and not text.startswith(b"#")), (1, b"")
    )
    if not head:
        raise TraceError(f"{path}:1: expected a header line, found an empty file; add header and rows")
    names = _fields(head.decode().removesuffix("\n"))
    shown = printable(head.decode().strip())
    if not names:
        raise TraceError(f'{path}:{line}: expected a header line, got "{shown}"; save the file as CSV')
    if len(names) == 1 and (";" in names[0] or "\t" in names[0]):
        raise TraceError(f'{path}:{line}: expected columns separated by commas, got "{shown}"; use commas')
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        got = f'got "{printable(twice)}" twice'
        raise TraceError(f"{path}:{line}: expected distinct column names, {got}; rename one")
    return line, names


def _is_plain(data: bytes, header_line: int) -> bool:
    """Whether rows may be cut at commas without looking at each line."""
    return header_line == 1 and not any(mark in data for mark in (b'"', b"\r", b"\n#", b"\n\n"))


def _fast_rows(path: str, data: bytes, header: list[str]) -> tuple[pd.DataFrame, np.ndarray, int] | None:
    """Read regular text at once; None if some line has the wrong number of fields."""
    raw = np.frombuffer(data if data.endswith(b"\n") else data + b"\n", dtype=np.uint8)
    ends = np.flatnonzero(raw == ord("\n"))
    commas = np.searchsorted(np.flatnonzero(raw == ord(",")), ends)
    if (np.diff(commas, prepend=0) != len(header) - 1).any():
        return None
    if len(ends) == 1:
        return pd.DataFrame(columns=header, dtype=str), np.empty(0, dtype=np.int64), 0
    try:
        frame = pd.read_csv(
            io.BytesIO(data),
            header=0,
            names=header,
            dtype=str,
            na_filter=False,
            quoting=csv.QUOTE_NONE,
            index_col=False,
            skip_blank_lines=False,
        )
    except pd.errors.ParserError:  # pragma: no cover - the count of commas has already been checked
        raise TraceError(f"{path}: expected CSV rows; save it as UTF-8 CSV") from None
    return frame.apply(lambda column: column.str.strip()), np.arange(2, len(frame) + 2), 0


def _careful_rows(
    path: str, data: bytes, header_line: int, header: list[str], mode: Mode
) -> tuple[pd.DataFrame, np.ndarray, int]:
    """Read line by line: comments, blank lines, quotes, and the exact line of a wrong row."""
    rows: list[list[str]] = []
    lines: list[int] = []
    dropped = 0
    for number, text in enumerate(data.decode().split("\n"), start=1):
        if number <= header_line or not text.strip() or text.startswith("#"):
            continue
        fields = _fields(text)
        if len(fields) == len(header):
            rows.append(fields)
            lines.append(number)
        elif mode == "lenient":
            dropped += 1
        else:
            raise TraceError(
                f"{path}:{number}: expected {len(header)} fields ({', '.join(header)}), got {len(fields)}; "
                "fix the row or read with --lenient"
            )
    return pd.DataFrame(rows, columns=header, dtype=str), np.array(lines, dtype=np.int64), dropped


def _fields(text: str) -> list[str]:
    try:
        return [field.strip() for field in next(csv.reader([text], strict=True))]
    except csv.Error:
        # An open quote: no number of fields is right.
        return []
