"""How is an input file opened and cut into lines? Line by line, bounded, checked to be text."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fedsim.errors import TraceError
from fedsim.world.importers.place import Place

_MAX_LINE_BYTES = 16 << 20
_BOM = b"\xef\xbb\xbf"
_PACKED = {b"\x1f\x8b": "gzip", b"PK": "zip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open an input file.

    Raises:
        TraceError: If it is not there or cannot be read.
    """
    try:
        with path.open("rb") as stream:
            yield stream
    except FileNotFoundError:
        raise TraceError(f"{path}: expected a trace file, found none; check the path") from None
    except OSError as error:
        raise TraceError(
            f"{path}: expected a readable trace file, found: {error.strerror}; check it"
        ) from None


def read_lines(path: Path) -> Iterator[tuple[Place, str]]:
    """Yield the lines that are not blank, without their ends.

    Raises:
        TraceError: If the file is missing, empty, or not UTF-8 text of ordinary lines.
    """
    line, seen = 0, False
    with opened(path) as stream:
        while raw := stream.readline(_MAX_LINE_BYTES + 1):
            line += 1
            text = decoded(Place(path, line), raw)
            if text:
                seen = True
                yield Place(path, line), text
    if not seen:
        raise Place(path, 1).wrong("line", "a trace", "an empty file", "check the download")


def decoded(place: Place, raw: bytes) -> str:
    """Return one line as text without blanks around it.

    Raises:
        TraceError: If it is not text.
    """
    if len(raw) > _MAX_LINE_BYTES:
        found = f"more than {_MAX_LINE_BYTES} bytes without an end of line"
        raise place.wrong("line", "lines of text", found, "check the format")
    packed = next((name for magic, name in _PACKED.items() if place.line == 1 and raw.startswith(magic)), "")
    if packed and (b"\0" in raw or not raw.isascii()):
        raise place.wrong("line", "UTF-8 text", f"a {packed} archive", "unpack it first")
    if b"\0" in raw:
        raise place.wrong("line", "UTF-8 text", "a NUL byte", "check the format")
    try:
        return raw.removeprefix(_BOM).decode("utf-8").strip()
    except UnicodeDecodeError:
        raise place.wrong(
            "line", "UTF-8 text", "bytes that are not UTF-8", "check the format, or save it as UTF-8"
        ) from None
