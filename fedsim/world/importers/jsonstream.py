"""How is a large JSON file read without holding it? The outermost entries, one by one."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from fedsim.world.importers.place import Place
from fedsim.world.importers.text import opened

_CHUNK = 1 << 20
_MAX_ENTRY = 64 << 20
_NEAR_END = 64
_BLANK = " \t\r\n"
_CLOSING = {"{": "}", "[": "]"}


def read_entries(path: Path, opening: str) -> Iterator[tuple[Place, str | None, Any]]:
    """Yield line, key (None in an array) and value of each entry.

    Args:
        path: The file.
        opening: ``{`` if the file holds an object, ``[`` if it holds an array.

    Raises:
        TraceError: If the file is not JSON of that form, or an entry is larger than 64 MiB.
    """
    with opened(path) as stream:
        text = _Text(path, stream)
        text.expect(opening)
        closing = _CLOSING[opening]
        if text.peek() != closing:
            yield from _entries(text, opening, closing)
        text.expect(closing)
        if text.peek():
            raise text.place().wrong("JSON", "the end of the file", text.peek(), "check the download")


def _entries(text: "_Text", opening: str, closing: str) -> Iterator[tuple[Place, str | None, Any]]:
    while True:
        text.peek()
        place, key = text.place(), None
        if opening == "{":
            key = text.value()
            if not isinstance(key, str):
                raise place.wrong("JSON", "a key in quotes", key, "check the format")
            text.expect(":")
        text.peek()
        yield place, key, text.value()
        if text.peek() == closing:
            return
        text.expect(",")


class _Text:
    """A window on the file that slides forward."""

    def __init__(self, path: Path, stream: IO[bytes]) -> None:
        self._path = path
        self._stream = stream
        self._decoder = json.JSONDecoder(object_pairs_hook=_distinct, parse_constant=_refuse_constant)
        self._rest = b""
        self._text = ""
        self._at = 0
        self._line = 1
        self._ended = False

    def place(self) -> Place:
        """Return the line of the next character."""
        return Place(self._path, self._line + self._text.count("\n", 0, self._at))

    def peek(self) -> str:
        """Skip blanks; return the next character, empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _BLANK:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def expect(self, char: str) -> None:
        """Step over one character."""
        found = self.peek()
        if found != char:
            self._fail(f'"{char}"', found or "the end of the file")
        self._at += 1

    def value(self) -> Any:
        """Read the value that begins here."""
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated") or error.pos >= len(self._text) - _NEAR_END
                if not (cut and self._more()):
                    self._fail("JSON", "the end of the file" if self._is_cut(error) else error.msg)
            except (ValueError, RecursionError) as error:
                self._fail("JSON", str(error))
            else:
                # A number at the edge of the window may go on behind it.
                if end < len(self._text) or not self._more():
                    self._at = end
                    return value

    def _is_cut(self, error: json.JSONDecodeError) -> bool:
        """Move to the error; say whether the text simply ends there."""
        self._at = error.pos
        return error.msg.startswith("Unterminated") or error.pos >= len(self._text.rstrip())

    def _more(self) -> bool:
        if self._ended:
            return False
        self._line += self._text.count("\n", 0, self._at)
        kept = self._text[self._at :]
        if len(kept) > _MAX_ENTRY:
            self._text, self._at = kept, 0
            self._fail("entries of at most 64 MiB", "a larger one")
        # The window doubles, so that a long entry is decoded a few times only.
        chunk = self._stream.read(max(_CHUNK, len(kept)))
        self._ended = not chunk
        self._text, self._at = kept + self._decoded(chunk), 0
        return not self._ended

    def _decoded(self, chunk: bytes) -> str:
        data = self._rest + chunk
        if self._line == 1 and not self._text:
            data = data.removeprefix(b"\xef\xbb\xbf")
        try:
            self._rest = b""
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            if self._ended or error.end < len(data):
                self._fail("UTF-8 text", "bytes that are not UTF-8")
            self._rest = data[error.start :]
            return data[: error.start].decode("utf-8")

    def _fail(self, expected: str, found: str) -> NoReturn:
        raise self.place().wrong("JSON", expected, found, "check the format and the download")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key that occurs twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name}, which is no number")
