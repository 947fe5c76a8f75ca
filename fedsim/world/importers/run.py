"""One import from start to end: find the files, read them, write the canonical CSVs."""

from collections.abc import Sequence
from pathlib import Path

from fedsim.errors import TraceError
from fedsim.world.importers.catalogue import PUBLISHED
from fedsim.world.importers.inputs import Chosen, choose
from fedsim.world.importers.rows import Choices, Count
from fedsim.world.importers.writer import About, Written, write_import

_DEFAULTS = Choices()
_OPTIONS = {"merge_gap_s": "--merge-gap", "bin_s": "--bin", "seed": "--seed"}


def import_published(
    name: str, paths: Sequence[Path], out: Path, choices: Choices = _DEFAULTS, *, force: bool = False
) -> tuple[Chosen, Written]:
    """Convert published traces into canonical CSVs with their sidecars.

    Args:
        name: A published format, or ``auto`` to decide by content.
        paths: Files or folders.
        out: Folder to make.
        choices: What the user chose; a choice that the format does not heed is refused.
        force: Replace an earlier import.

    Returns:
        What was read, and what was written.

    Raises:
        TraceError: For the first thing that is wrong; nothing is left behind.
    """
    chosen = choose(name, paths)
    published = PUBLISHED[chosen.name]
    for field, option in _OPTIONS.items():
        if getattr(choices, field) is not None and field not in published.choices:
            heeding = ", ".join(known for known, other in PUBLISHED.items() if field in other.choices)
            raise TraceError(
                f'{option}: expected a format that heeds it ({heeding}), found "{chosen.name}"; leave it out'
            )
    about = About(published.source, published.licence, tuple(source.path for source in chosen.inputs))
    written = write_import(published.read(chosen.inputs, choices), out, about, force=force)
    if chosen.skipped:
        skipped = Count(f"files in the folder that are not {chosen.name} skipped", len(chosen.skipped))
        written.counts[skipped.what] = skipped.number
    return chosen, written
