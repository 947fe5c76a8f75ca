"""How do generated files reach the disk? In the form that was asked for, and all of them or none."""

import gzip
import io
from collections.abc import Mapping
from pathlib import Path

from fedsim.errors import MissingExtraError, TraceError

FORMATS = ("csv", "csv.gz", "parquet")


def encoded(files: Mapping[str, str], file_format: str) -> dict[str, bytes]:
    """Turn texts into the bytes of files; tables change form and name, the rest stays text.

    Args:
        files: Name -> text.
        file_format: One of `FORMATS`.

    Raises:
        TraceError: If the form is unknown.
        MissingExtraError: If Parquet is asked for and its package is not installed.
    """
    if file_format not in FORMATS:
        raise TraceError(f'--format: expected one of {", ".join(FORMATS)}, got "{file_format}"; choose one')
    done: dict[str, bytes] = {}
    for name, text in files.items():
        table, dot, rest = name.partition(".csv")
        done[f"{table}.{file_format}{rest}" if dot else name] = (
            _table(text, file_format) if dot and not rest else text.encode()
        )
    return done


def _table(text: str, file_format: str) -> bytes:
    if file_format == "csv":
        return text.encode()
    if file_format == "csv.gz":
        # No time and no name inside, so that the same text gives the same bytes.
        return gzip.compress(text.encode(), compresslevel=6, mtime=0)
    return _parquet(text)


def _parquet(text: str) -> bytes:
    try:
        from pyarrow import BufferReader, csv, parquet, string  # noqa: PLC0415 - an optional extra
    except ModuleNotFoundError:
        raise MissingExtraError(
            'writing Parquet needs pyarrow; install it: pip install "fedsim-lora[parquet]"'
        ) from None
    columns = csv.ConvertOptions(column_types={"value": string()}, strings_can_be_null=True)
    table = csv.read_csv(BufferReader(text.encode()), convert_options=columns)
    out = io.BytesIO()
    parquet.write_table(table, out, compression="zstd")
    return out.getvalue()


def check_target(out: Path, *, force: bool) -> None:
    """Refuse to write over what somebody may want to keep."""
    if out.exists() and not out.is_dir():
        raise TraceError(f"--out {out}: expected a folder, found a file; choose another path")
    if out.is_dir() and any(out.iterdir()) and not force:
        raise TraceError(f"--out {out}: expected an empty folder, found files; add --force to replace them")


def write_all(out: Path, files: Mapping[str, bytes]) -> None:
    """Write beside the target, then move: a run that is cut short leaves nothing half-written."""
    from tempfile import TemporaryDirectory  # noqa: PLC0415 - keeps help fast

    parent = out.resolve().parent
    parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{out.name}-", dir=parent) as folder:
        made = Path(folder) / "traces"
        made.mkdir()
        for name, content in files.items():
            (made / name).write_bytes(content)
        if out.is_dir() and any(out.iterdir()):
            # Only the files of such a run are replaced; whatever else lies there stays.
            for name in files:
                (made / name).replace(out / name)
        else:
            if out.is_dir():
                out.rmdir()
            made.replace(out)
