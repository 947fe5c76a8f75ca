"""What does the index of a journal say? One line per result, with the hash of itself and all before it."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedsim.errors import InputError

JOURNAL = "journal"
INDEX = "index.jsonl"
OBJECTS = "objects"
SUFFIX = ".safetensors"
_START = "0" * 64

Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Entry:
    """One result.

    Args:
        kind: ``update``, ``combined``, ``state`` or ``evaluation``.
        number: Assignment or version.
        asked: Digest of the question that it answers.
        told: Plain values that are needed at once.
        content: SHA-256 of the file with the rest; None where there is none.
    """

    kind: str
    number: int
    asked: str
    told: Any
    content: str | None

    @property
    def key(self) -> Key:
        """What it is found by."""
        return self.kind, self.number


@dataclass(slots=True)
class Index:
    """What the lines of an index say together.

    Args:
        entries: By kind and number; the first of each counts.
        dropped: Entries whose files were deleted on purpose.
        chain: Hash of the last line.
        size_bytes: Of the whole lines.
    """

    entries: dict[Key, Entry] = field(default_factory=dict)
    dropped: set[Key] = field(default_factory=set)
    chain: str = _START
    size_bytes: int = 0

    def add(self, body: dict[str, Any]) -> None:
        """Take one line into account."""
        if "dropped" in body:
            kind, number = body["dropped"]
            self.dropped.add((str(kind), int(number)))
            return
        entry = Entry(
            str(body["kind"]), int(body["number"]), str(body["asked"]), body["told"], body["content"]
        )
        self.entries.setdefault(entry.key, entry)

    def live(self) -> dict[str, set[Key]]:
        """Files that must be there, and whose they are."""
        found: dict[str, set[Key]] = {}
        for key, entry in self.entries.items():
            if entry.content is not None and key not in self.dropped:
                found.setdefault(entry.content, set()).add(key)
        return found


def read_index(path: Path) -> Index:
    """Read an index; a torn last line, which a killed run leaves, does not count.

    Raises:
        InputError: If a line is damaged.
    """
    index = Index()
    for number, line in enumerate(_whole_lines(path), start=1):
        try:
            body = _checked(line, index.chain)
            chain = body.pop("chain")
            index.add(body)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{path}:{number}: damaged ({error}); restore the file from a copy, or run anew"
            ) from error
        index.chain = chain
        index.size_bytes += len(line)
    return index


def _checked(line: bytes, before: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(line)
    rest = {key: value for key, value in body.items() if key != "chain"}
    if line != index_line(rest, chain_hash(before, rest)):
        raise ValueError("its hash differs")
    return body


def _whole_lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from (line for line in file if line.endswith(b"\n"))
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _canonical(body: dict[str, Any]) -> str:
    return json.dumps(body, separators=(",", ":"), sort_keys=True)


def chain_hash(before: str, body: dict[str, Any]) -> str:
    """Hash of a line: of its content, and of the hash of the line before."""
    return hashlib.sha256((before + _canonical(body)).encode()).hexdigest()


def index_line(body: dict[str, Any], chain: str) -> bytes:
    """One line of the index."""
    return f"{_canonical({**body, 'chain': chain})}\n".encode()
