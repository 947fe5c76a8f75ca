"""How do commands speak? Options that many of them share, and colours, which only a terminal gets."""

import os
from collections.abc import Sequence
from typing import Annotated

import typer

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Say only what is wrong.")]


def tinted(words: str, colour: str) -> str:
    """Colour words for a terminal; `typer.echo` takes the colour away where the output goes elsewhere.

    Args:
        words: To be printed by `typer.echo`.
        colour: Its name, for instance ``red``; it never says anything that the words do not.
    """
    return words if os.environ.get("NO_COLOR") else typer.style(words, fg=colour)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Put cells of equal columns below each other; numbers to the right, but for the first column."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
