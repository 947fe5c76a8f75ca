"""How does a data file become rows? CSV, TSV, JSON, JSON lines, Parquet and Arrow, compressed or not.

Files are the user's; they are read through `datasets`, nothing is downloaded and nothing stays in a cache.
"""

import bz2
import csv
import gzip
import json
import lzma
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from fedsim.errors import ModelError

_OPENERS: Mapping[str, Callable[..., IO[str]]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_BUILDERS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
FORMATS = f"{', '.join(_BUILDERS)}, as it is or as {', '.join(_OPENERS)}"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a data file, which can say where it stands.

    Args:
        path: The file.
        number: Counted from one, header not included.
        values: By column.
    """

    path: Path
    number: int
    values: Mapping[str, Any]

    def text(self, *columns: str) -> str:
        """Return the text of the first of these columns that the row has.

        Raises:
            ModelError: If it has none of them, or the value is no text or empty.
        """
        value = self.value(*columns)
        if not isinstance(value, str) or not value.strip():
            raise self.error(f"expected text in column {columns[0]}, found {_shown(value)}")
        return value

    def optional_text(self, column: str) -> str:
        """Return the text of a column, or nothing where it is absent or empty.

        Raises:
            ModelError: If the value is no text.
        """
        value = self.values.get(column)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.error(f"expected text in column {column}, found {_shown(value)}")
        return value

    def texts(self, column: str, count: int) -> tuple[str, ...]:
        """Return a list of so many texts; a CSV cell writes it as JSON.

        Raises:
            ModelError: If it is not one.
        """
        value = self.value(column)
        if isinstance(value, str):
            value = _parsed(value)
        good = isinstance(value, Sequence) and not isinstance(value, str) and len(value) == count
        if not good or not all(isinstance(item, str) and item.strip() for item in value):
            raise self.error(f"expected {count} texts in column {column}, found {_shown(value)}")
        return tuple(value)

    def index(self, column: str, count: int, first: int = 0) -> int:
        """Return a whole number from `first` on, `count` of them, counted from zero.

        Raises:
            ModelError: If it is not one.
        """
        value = self.value(column)
        plain = str(value).strip()
        if isinstance(value, bool) or plain not in {str(first + number) for number in range(count)}:
            raise self.error(
                f"expected a whole number from {first} to {first + count - 1} in column {column}, "
                f"found {_shown(value)}"
            )
        return int(plain) - first

    def truth(self, column: str) -> bool:
        """Return a truth value, however it is written.

        Raises:
            ModelError: If it is not one.
        """
        value = self.value(column)
        plain = str(value).strip().lower()
        if plain not in {"true", "yes", "1", "false", "no", "0"}:
            raise self.error(f"expected true or false in column {column}, found {_shown(value)}")
        return plain in {"true", "yes", "1"}

    def value(self, *columns: str) -> Any:
        """Return the value of the first of these columns that the row has.

        Raises:
            ModelError: If it has none of them.
        """
        for column in columns:
            if column in self.values:
                return self.values[column]
        raise self.error(f"expected the column {' or '.join(columns)}, found {', '.join(self.values)}")

    def error(self, message: str) -> ModelError:
        """Return the error that names this row."""
        return ModelError(f"{self.path}: row {self.number}: {message}")


def read_rows(path: Path) -> list[Row]:
    """Read a data file of any known format.

    Raises:
        ModelError: If the file is missing, has no rows, or cannot be read; with the row where one is broken.
    """
    if not path.is_file():
        raise ModelError(f"{path}: expected a data file, found none")
    suffix = path.suffix.lower()
    inner = Path(path.stem).suffix.lower() if suffix in _OPENERS else suffix
    if inner not in _BUILDERS:
        raise ModelError(f"{path}: expected a file of {FORMATS}, found {path.name}")
    options = _csv_options(path, inner) if _BUILDERS[inner] == "csv" else {}
    rows = [Row(path, number, values) for number, values in enumerate(_load(path, inner, options), start=1)]
    if not rows:
        raise ModelError(f"{path}: expected rows, found none")
    return rows


def read_lines(path: Path) -> list[str]:
    """Read a text file, compressed or not.

    Raises:
        ModelError: If it is missing, broken or no UTF-8 text.
    """
    if not path.is_file():
        raise ModelError(f"{path}: expected a text file, found none")
    with _opened(path) as file:
        return file.read().splitlines()


def _load(path: Path, inner: str, options: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Read through `datasets`, which must leave nothing in the user's cache."""
    import datasets  # noqa: PLC0415 - takes long, and generated data need none

    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory(prefix="fedsim-") as cache:
        try:
            table = datasets.load_dataset(
                _BUILDERS[inner],
                data_files=str(path),
                split="train",
                cache_dir=cache,
                download_config=datasets.DownloadConfig(cache_dir=cache),
                keep_in_memory=True,
                **options,
            )
            return list(table)
        except Exception as error:  # datasets passes on whatever its readers raise
            cause = error.__cause__ or error
            where = _broken_place(path, inner)
            reason = " ".join(str(cause).split()) or type(cause).__name__
            raise ModelError(where or f"{path}: expected a {inner} file: {reason[:300]}") from error


def _csv_options(path: Path, inner: str) -> dict[str, Any]:
    """Every cell is text: an empty one stays empty, "NA" and "007" stay what they are."""
    delimiter = "\t" if inner == ".tsv" else ","
    with _opened(path) as file:
        header = next(csv.reader(file, delimiter=delimiter), [])
    if not header:
        raise ModelError(f"{path}: expected a header with column names, found an empty file (no data)")
    return {"sep": delimiter, "keep_default_na": False, "converters": dict.fromkeys(header, str)}


def _broken_place(path: Path, inner: str) -> str | None:
    """Look for the first row that cannot be parsed, once reading has failed."""
    if _BUILDERS[inner] == "csv":
        return _uneven_row(path, "\t" if inner == ".tsv" else ",")
    if _BUILDERS[inner] == "json":
        return _broken_json(path)
    return None


def _uneven_row(path: Path, delimiter: str) -> str | None:
    with _opened(path) as file:
        reader = csv.reader(file, delimiter=delimiter)
        width = len(next(reader, []))
        for number, cells in enumerate((cells for cells in reader if cells), start=1):
            if len(cells) != width:
                return f"{path}: row {number}: expected {width} columns as in the header, found {len(cells)}"
    return None


def _broken_json(path: Path) -> str | None:
    with _opened(path) as file:
        text = file.read()
    if text.lstrip().startswith("["):
        try:
            items = json.loads(text)
        except ValueError as error:
            return f"{path}: expected a JSON list of objects: {error}"
        numbered = list(enumerate(items, start=1))
        wrong = next((number for number, item in numbered if not isinstance(item, dict)), None)
        return None if wrong is None else f"{path}: row {wrong}: expected a JSON object"
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not isinstance(_parsed(line), dict):
            return f"{path}: row {number}: expected one JSON object a line, found {line[:60]!r}"
    return None


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    """Open as UTF-8 text whatever the compression.

    Raises:
        ModelError: If it cannot be read as such.
    """
    opener = _OPENERS.get(path.suffix.lower(), open)
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            yield file
    except (OSError, EOFError, UnicodeDecodeError, lzma.LZMAError, csv.Error) as error:
        raise ModelError(f"{path}: expected UTF-8 text: {error}") from error


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _shown(value: object) -> str:
    if value is None or value == "":
        return "nothing"
    return repr(value)[:80]
