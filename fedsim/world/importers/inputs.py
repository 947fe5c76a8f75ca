"""Which files are to be read, in which format, and how are their traces called?"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedsim.errors import TraceError
from fedsim.world.importers.catalogue import PUBLISHED
from fedsim.world.importers.head import read_head
from fedsim.world.importers.mahimahi import trace_name
from fedsim.world.importers.rows import NamedPath

AUTO = "auto"
_SUFFIXES = (".json", ".csv", ".txt", ".log")
_MAX_NAME = 56


@dataclass(frozen=True, slots=True)
class Chosen:
    """What an import reads.

    Args:
        name: The format.
        inputs: Files with the names of their traces.
        skipped: Files found in a folder that are not of this format.
    """

    name: str
    inputs: tuple[NamedPath, ...]
    skipped: tuple[Path, ...]


def choose(name: str, paths: Sequence[Path]) -> Chosen:
    """Find the files and, for ``auto``, the format by their content.

    Args:
        name: A published format or ``auto``.
        paths: Files, or folders that are searched for files of the format.

    Raises:
        TraceError: If the format is unknown, no file is of it, or the content fits several.
    """
    if name != AUTO and name not in PUBLISHED:
        known = ", ".join((*PUBLISHED, AUTO))
        raise TraceError(f'format: expected one of {known}, found "{name}"; correct the name')
    files = list(dict.fromkeys(_files(paths)))
    explicit = set(paths)
    fitting = {path: _fitting(path) for path in files if name == AUTO or path not in explicit}
    if name == AUTO:
        name = _only(fitting, explicit)
    read = [path for path in files if path not in fitting or name in fitting[path]]
    if not read:
        raise TraceError(f"{paths[0]}: expected files of the format {name}, found none; check the folder")
    skipped = tuple(path for path in files if path not in read)
    return Chosen(name, tuple(_named(name, read)), skipped)


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            found = (file for file in path.rglob("*") if file.is_file())
            yield from sorted(file for file in found if not file.name.startswith("."))
        elif path.exists():
            yield path
        else:
            raise TraceError(f"{path}: expected a file or folder, found none; check the path")


def _fitting(path: Path) -> tuple[str, ...]:
    head = read_head(path)
    return tuple(name for name, published in PUBLISHED.items() if published.fits(head))


def _only(fitting: dict[Path, tuple[str, ...]], explicit: set[Path]) -> str:
    """Return the one format that fits every file; files in a folder that fit none are left out."""
    known = {path: names for path, names in fitting.items() if names or path in explicit}
    bare = next((path for path, names in known.items() if not names), next(iter(fitting), None))
    if not known or any(not names for names in known.values()):
        formats = ", ".join(PUBLISHED)
        raise TraceError(f"{bare}: expected one of the formats {formats}, found none that fits; name one")
    common = [name for name in PUBLISHED if all(name in names for names in known.values())]
    if len(common) == 1:
        return common[0]
    if common:
        first = next(iter(known))
        raise TraceError(
            f"{first}: expected one format, found content that may be {' or '.join(common)}; "
            "name it instead of auto"
        )
    (one, its), (other, theirs) = _conflict(known)
    raise TraceError(
        f"{other}: expected {' or '.join(its)} as {one} is, found {' or '.join(theirs)}; "
        "import each format by itself"
    )


def _conflict(known: dict[Path, tuple[str, ...]]) -> list[tuple[Path, tuple[str, ...]]]:
    """Return two files that share no format, or the first and the last."""
    items = list(known.items())
    for item in items[1:]:
        if not set(items[0][1]) & set(item[1]):
            return [items[0], item]
    return [items[0], items[-1]]


def _named(name: str, paths: Sequence[Path]) -> Iterator[NamedPath]:
    """Name each trace after its file; after folder and file where two files have one name."""
    taken: dict[str, Path] = {}
    short = [_identifier(name, _stem(name, path)) for path in paths]
    for path, candidate in zip(paths, short, strict=True):
        shared = name == "mahimahi" and path.suffix == ".up"
        twice = sum(other == candidate for other in short) > (2 if name == "mahimahi" else 1)
        chosen = _identifier(name, f"{path.parent.name}-{_stem(name, path)}") if twice else candidate
        if not shared and chosen in taken:
            raise TraceError(
                f"{path}: expected files of different names, found {taken[chosen]} too; rename one"
            )
        if not shared:
            taken[chosen] = path
        yield NamedPath(path, chosen)


def _stem(name: str, path: Path) -> str:
    if name == "mahimahi":
        return trace_name(path)
    return path.stem if path.suffix in _SUFFIXES else path.name


def _identifier(name: str, text: str) -> str:
    """Return an identifier that the canonical readers accept; a long one ends in a digest of the whole."""
    clean = f"{name}-{re.sub('[^A-Za-z0-9._-]', '_', text)}"
    if len(clean) <= _MAX_NAME:
        return clean
    return f"{clean[: _MAX_NAME - 9]}-{hashlib.sha256(text.encode(errors='replace')).hexdigest()[:8]}"
