"""How do canonical rows become files? Streamed, checked by the canonical readers, moved into place at once.

Until the last step everything lies in a hidden folder beside the target, so a failure leaves nothing behind.
"""

import csv
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedsim.errors import TraceError
from fedsim.world.formats.read import read_trace
from fedsim.world.formats.records import Kind
from fedsim.world.importers.rows import KINDS, OPTIONAL_COLUMNS, Count, DeviceRow, Item, Row

FILES: dict[Kind, str] = {kind: f"{kind}.csv" for kind in KINDS.values()}
_OWN = frozenset(name + end for name in FILES.values() for end in ("", ".toml"))
_HASH_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class About:
    """What the sidecar says about all files of an import.

    Args:
        source: What it is and where it was described.
        licence: What its publisher says.
        inputs: Files that were read.
    """

    source: str
    licence: str
    inputs: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """What an import left.

    Args:
        folder: Where.
        rows: Rows per file.
        counts: What was merged, dropped, split, clipped or assumed, and how often.
        doubts: What the canonical readers find odd, for instance a probable mistake of unit.
    """

    folder: Path
    rows: dict[str, int]
    counts: dict[str, int]
    doubts: tuple[str, ...]


@dataclass(slots=True)
class _Sheet:
    """One CSV that is being written."""

    writer: Any
    columns: tuple[int, ...]
    rows: int = 0


@dataclass(slots=True)
class _Desk:
    """What has been written so far."""

    folder: Path
    files: ExitStack
    sheets: dict[type, _Sheet] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    period_s: float | None = None

    def take(self, item: Item) -> None:
        if isinstance(item, Count):
            if item.number:
                self.counts[item.what] = self.counts.get(item.what, 0) + item.number
            return
        if isinstance(item, DeviceRow) and item.availability_period_s:
            self.period_s = max(self.period_s or 0.0, item.availability_period_s)
        sheet = self.sheets.get(type(item)) or self._begun(item)
        sheet.writer.writerow([_cell(item[k]) for k in sheet.columns])
        sheet.rows += 1

    def _begun(self, row: Row) -> _Sheet:
        path = self.folder / FILES[KINDS[type(row)]]
        stream = self.files.enter_context(path.open("w", encoding="utf-8", newline=""))
        absent = {name for name in OPTIONAL_COLUMNS if getattr(row, name, None) is None}
        columns = tuple(k for k, name in enumerate(row._fields) if name not in absent)
        sheet = _Sheet(csv.writer(stream, lineterminator="\n"), columns)
        sheet.writer.writerow([row._fields[k] for k in columns])
        self.sheets[type(row)] = sheet
        return sheet


def write_import(items: Iterable[Item], out: Path, about: About, *, force: bool = False) -> Written:
    """Write the rows of an import.

    Args:
        items: Rows and counts, consumed one by one.
        out: Folder that will hold the files.
        about: For the sidecars.
        force: Replace an earlier import in the folder.

    Raises:
        TraceError: If an input is wrong, there is nothing to write, or the folder holds anything else.
    """
    out = Path(os.path.realpath(out))
    _check_target(out, force=force)
    with _beside(out) as desk_folder:
        fresh = desk_folder / "new"
        fresh.mkdir()
        with ExitStack() as files:
            desk = _Desk(fresh, files)
            for item in items:
                desk.take(item)
        if not desk.sheets:
            what = "; ".join(f"{number} {what}" for what, number in desk.counts.items()) or "nothing"
            raise TraceError(
                f"{about.inputs[0]}: expected a trace to import, found: {what}; check the format"
            )
        doubts = _finish(desk, about, out)
        _swap(fresh, out, desk_folder / "old")
    rows = {FILES[KINDS[kind]]: sheet.rows for kind, sheet in desk.sheets.items()}
    return Written(out, rows, desk.counts, doubts)


def _cell(value: object) -> object:
    """Ten digits say more than any of these measurements knows."""
    return f"{value:.10g}" if isinstance(value, float) else value


def _check_target(out: Path, *, force: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise TraceError(f"{out}: expected a folder for --out, found a file; choose another name")
    found = sorted(path.name for path in out.iterdir())
    strange = [name for name in found if name not in _OWN]
    if strange:
        raise TraceError(
            f'{out}: expected a new or empty folder, found "{strange[0]}" in it; choose another with --out'
        )
    if found and not force:
        raise TraceError(f"{out}: expected a new folder, found an earlier import; replace it with --force")


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """Make a hidden folder on the same disk; whatever happens, it is gone afterwards."""
    made = [parent for parent in out.parents if not parent.exists()]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise TraceError(
            f"{out}: expected a place to write, found: {error.strerror}; choose another with --out"
        ) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not out.exists():
            for parent in made:
                parent.rmdir()


def _finish(desk: _Desk, about: About, out: Path) -> tuple[str, ...]:
    """Write the sidecars, then read everything back as a scenario would."""
    for kind in (KINDS[row] for row in desk.sheets):
        name = FILES[kind]
        sidecar = _sidecar(kind, about, desk.period_s if kind == "availability" else None)
        (desk.folder / f"{name}.toml").write_text(sidecar, encoding="utf-8")
    doubts: list[str] = []
    for kind in (KINDS[row] for row in desk.sheets):
        try:
            notes = read_trace(desk.folder / FILES[kind]).origin.notes
        except TraceError as error:
            raise TraceError(str(error).replace(str(desk.folder), str(out))) from None
        doubts += [note.replace(str(desk.folder), str(out)) for note in notes if "unit?" in note]
    return tuple(doubts)


def _sidecar(kind: Kind, about: About, period_s: float | None) -> str:
    # The format of the sidecar is a subset of TOML in which a JSON string is a string.
    lines = [f"# made from {_digest(path)} {ascii(path.name)[1:-1]}" for path in about.inputs]
    lines += [
        f"kind = {json.dumps(kind)}",
        f"source = {json.dumps(about.source)}",
        f"licence = {json.dumps(about.licence)}",
    ]
    if kind in ("availability", "bandwidth"):
        lines.append("loop = true")
    if kind == "bandwidth":
        lines.append('gap_policy = "hold"')
    if period_s is not None:
        lines.append(f"period_s = {period_s:.10g}")
    return "\n".join(lines) + "\n"


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_HASH_CHUNK):
            digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def _swap(fresh: Path, out: Path, old: Path) -> None:
    """Move the new folder into place; the earlier one stays until that has happened."""
    if out.exists():
        out.rename(old)
    try:
        fresh.rename(out)
    except OSError:
        if old.exists():
            old.rename(out)
        raise
