"""Where is real work kept, so that a killed run need not do it twice? In a journal of results by content.

``journal/index.jsonl`` has one line per result; what has tensors lies beside it in ``journal/objects``, named
by the SHA-256 of its bytes. A file is written under another name, flushed to the disk and renamed before the
index names it, and the index names it before the record tells of it. So whatever moment a run is killed at,
what the record says can be found here.
"""

import hashlib
import os
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import IO, Any

from fedsim.errors import InputError, StorageError
from fedsim.experiment.journal_index import (
    INDEX,
    JOURNAL,
    OBJECTS,
    SUFFIX,
    Entry,
    chain_hash,
    index_line,
    read_index,
)
from fedsim.experiment.record import storing
from fedsim.learn.freeze import freeze, thaw


class Journal:
    """The results of one run, on disk. Safe to use from several threads.

    Args:
        directory: Of the run; its journal is made, or read and gone on with.
        read_only: Look up and load only; nothing on disk changes.

    Raises:
        InputError: If the journal is damaged, or cannot be opened.
    """

    def __init__(self, directory: Path, *, read_only: bool = False) -> None:
        self.directory = directory / JOURNAL
        self._objects = self.directory / OBJECTS
        self._lock = Lock()
        self._index = read_index(self.directory / INDEX)
        self._live = self._index.live()
        self._file: IO[bytes] | None = None
        if read_only:
            return
        try:
            self._objects.mkdir(parents=True, exist_ok=True)
            self._file = (self.directory / INDEX).open("ab")
            self._file.truncate(self._index.size_bytes)
            self._sweep()
        except OSError as error:
            raise InputError(
                f"{self.directory}: cannot be written: {error.strerror}; a run needs its journal"
            ) from error

    def _sweep(self) -> None:
        """Remove what a killed run left half-written or half-deleted."""
        for path in self._objects.iterdir():
            if path.suffix == ".tmp" or path.name.removesuffix(SUFFIX) not in self._live:
                path.unlink()

    def find(self, kind: str, number: int, asked: str) -> Entry | None:
        """Look a result up.

        Raises:
            InputError: If there is one that answers another question.
        """
        entry = self._index.entries.get((kind, number))
        if entry is not None and entry.asked != asked:
            raise InputError(
                f"{self.directory / INDEX}: {kind} {number} answers another question than this run asks; "
                "the journal belongs to another run, or fedsim has changed since"
            )
        return entry

    def get(self, kind: str, number: int) -> Entry | None:
        """Look a result up, whatever was asked."""
        return self._index.entries.get((kind, number))

    def is_dropped(self, entry: Entry) -> bool:
        """Whether the file of an entry was deleted on purpose."""
        return entry.key in self._index.dropped

    def load(self, entry: Entry) -> Any:
        """Return what the file of an entry holds.

        Raises:
            InputError: If it has none, or it is missing or damaged.
        """
        if entry.content is None:
            raise InputError(f"{self.directory / INDEX}: {entry.kind} {entry.number} has no file")
        return thaw(self._read(entry.content))

    def has_content(self, entry: Entry) -> bool:
        """Whether the file of an entry is there."""
        return entry.content is not None and self._path(entry.content).exists()

    def keep(self, kind: str, number: int, asked: str, *, told: Any = None, content: object = None) -> None:
        """Store a result, or check that it is the one that was stored before.

        Args:
            kind: Of the result.
            number: Assignment or version.
            asked: Digest of the question.
            told: Plain values, for the index.
            content: Anything with tensors, for a file of its own; None for no file.

        Raises:
            StorageError: If it cannot be written.
            InputError: If another result is stored for it.
        """
        frozen = None if content is None else freeze(content)
        digest = None if frozen is None else hashlib.sha256(frozen).hexdigest()
        entry = Entry(kind, number, asked, told, digest)
        with self._lock, storing(self.directory):
            known = self._index.entries.get(entry.key)
            if known is not None:
                self._compare(known, entry)
            if frozen is not None and digest is not None:
                self._write(digest, frozen)
            if known is None:
                self._append(asdict(entry))
                self._remember(entry)

    def _compare(self, known: Entry, entry: Entry) -> None:
        if known != entry:
            raise InputError(
                f"{self.directory / INDEX}: {known.kind} {known.number} came out differently this time; "
                "it was made on another kind of machine, or with another fedsim"
            )

    def _remember(self, entry: Entry) -> None:
        self._index.entries[entry.key] = entry
        if entry.content is not None:
            self._live.setdefault(entry.content, set()).add(entry.key)

    def drop(self, kind: str, number: int) -> None:
        """Delete a file that no resumed run can ask for; its line in the index stays.

        Raises:
            StorageError: If the index cannot be written.
        """
        key = (kind, number)
        with self._lock, storing(self.directory):
            entry = self._index.entries.get(key)
            if self._file is None or entry is None or entry.content is None or key in self._index.dropped:
                return
            self._append({"dropped": [kind, number]})
            self._index.dropped.add(key)
            holders = self._live[entry.content]
            holders.discard(key)
            if not holders:
                del self._live[entry.content]
                self._path(entry.content).unlink(missing_ok=True)

    def numbers(self, kind: str) -> list[int]:
        """Numbers of all entries of a kind, ascending."""
        with self._lock:
            return sorted(number for found, number in self._index.entries if found == kind)

    def sync(self) -> None:
        """Wait until everything kept so far has reached the disk.

        Raises:
            StorageError: If it cannot.
        """
        with self._lock, storing(self.directory):
            os.fsync(self._open_file().fileno())
            _sync_directory(self._objects)

    def close(self) -> None:
        """Let go of the index."""
        if self._file is not None:
            self._file.close()

    def _open_file(self) -> IO[bytes]:
        if self._file is None:
            raise StorageError(f"{self.directory}: opened to be read only")
        return self._file

    def _path(self, digest: str) -> Path:
        return self._objects / f"{digest}{SUFFIX}"

    def _read(self, digest: str) -> bytes:
        path = self._path(digest)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}; restore it from a copy, or run anew") from error
        if hashlib.sha256(content).hexdigest() != digest:
            raise InputError(
                f"{path}: damaged, its content is not what its name says; restore it from a copy. "
                "If it is an update, delete it and resume: it is trained again and must come out the same"
            )
        return content

    def _write(self, digest: str, content: bytes) -> None:
        path = self._path(digest)
        if path.exists():
            return
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    def _append(self, body: dict[str, Any]) -> None:
        chain = chain_hash(self._index.chain, body)
        line = index_line(body, chain)
        file = self._open_file()
        if file.closed:
            raise StorageError(f"{self.directory}: closed after a write that failed; resume the run")
        try:
            file.write(line)
            file.flush()
        except OSError:
            file.close()  # a torn line ends this journal; whoever resumes cuts it off
            raise
        self._index.chain = chain
        self._index.size_bytes += len(line)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
