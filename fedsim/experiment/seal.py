"""Has anything been changed since the run ended? Its summary holds the hash of every file, and of itself."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from fedsim.experiment.journal_index import INDEX, JOURNAL
from fedsim.experiment.record import ADAPTER, EVENTS, MANIFEST, METRICS, json_text

SEAL = "sha256"
FILES = "files"
_CHUNK = 1 << 20


def sealed(summary: Mapping[str, object], directory: Path) -> dict[str, object]:
    """Add the hash of every file of a run, and of the summary itself.

    Args:
        summary: Of the run, which is over.
        directory: Of the run.
    """
    files = {name: file_hash(directory / name) for name in sealed_files(directory)}
    content = {**summary, FILES: files}
    return {**content, SEAL: _own_hash(content)}


def sealed_files(directory: Path) -> Iterator[str]:
    """Yield the names of the files that are there when a run ends; the journal vouches for its own."""
    adapter = directory / ADAPTER
    names = [EVENTS, METRICS, MANIFEST, f"{JOURNAL}/{INDEX}"]
    names += sorted(f"{ADAPTER}/{path.name}" for path in adapter.iterdir()) if adapter.is_dir() else []
    yield from (name for name in names if (directory / name).is_file())


def broken_seals(directory: Path, text: str, summary: Mapping[str, object]) -> Iterator[str]:
    """Yield what is not as it was when the run ended.

    Args:
        directory: Of the run.
        text: Its summary, as it stands in the file.
        summary: The same, read.
    """
    content = {key: value for key, value in summary.items() if key != SEAL}
    if summary.get(SEAL) != _own_hash(content) or text != json_text(summary):
        yield "summary.json: its content does not have the hash that it states"
    files = summary.get(FILES)
    known = files if isinstance(files, dict) else {}
    present = set(sealed_files(directory))
    for name in sorted({*known, *present}):
        if name not in present:
            yield f"{name}: missing"
        elif name not in known:
            yield f"{name}: was not there when the run ended"
        elif file_hash(directory / name) != known[name]:
            yield f"{name}: changed since the run ended"


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _own_hash(content: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
