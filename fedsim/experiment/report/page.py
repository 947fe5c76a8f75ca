"""How does a page become one file? Escaped text, tables, figures, and the drawing library packed in once."""

import base64
import gzip
import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import groupby
from typing import Any

import pandas as pd

from fedsim.experiment.report.figure import Figure
from fedsim.units import format_bytes

TALL_PX = 700
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
ZOOM_BUTTONS = {"in": "Zoom in", "out": "Zoom out", "left": "Earlier", "right": "Later", "all": "Show all"}


@dataclass(frozen=True, slots=True)
class Section:
    """One section of a page.

    Args:
        id: Unique on the page.
        title: For the heading and the navigation.
        body: HTML, escaped already.
        figures: Drawn in `body`.
    """

    id: str
    title: str
    body: str
    figures: Sequence[Figure] = ()


def text(value: object) -> str:
    """Escape whatever came from a file."""
    return html.escape(str(value), quote=True)


def figure_html(figure: Figure, caveat: str = "") -> str:
    """Return the frame of one figure; where it has no data, its words.

    Args:
        figure: What is drawn.
        caveat: Stands under figures whose hours and bytes are those of another model.
    """
    heading = f"<h3>{text(figure.title)}</h3>"
    if not figure.traces:
        words = f'<p class="none">{text(figure.empty)}</p>'
        return f'<div class="figure" id="box-{figure.id}">{heading}{words}</div>'
    notes = [figure.note] if figure.note else []
    if figure.priced and caveat:
        notes.append(caveat)
    tall = figure.height_px > TALL_PX
    frame = ' class="tall scroll" tabindex="0" role="group" aria-label="Figure, scrolls"' if tall else ""
    words = "".join(f"<p>{text(note)}</p>" for note in notes)
    return (
        f'<div class="figure" id="box-{figure.id}">{heading}{words}{_key(figure)}{_controls(figure)}'
        f"<div{frame}>"
        f'<div class="plot" id="plot-{figure.id}" role="img" aria-label="{text(figure.title)}" '
        f'style="height:{figure.height_px}px">Drawing ...</div></div></div>'
    )


def _key(figure: Figure) -> str:
    items = "".join(
        f'<li><span style="color:{text(tint)}" aria-hidden="true">{sign}</span> {text(words)}</li>'
        for words, tint, sign in figure.key
    )
    return f'<ul class="key">{items}</ul>' if items else ""


def _controls(figure: Figure) -> str:
    parts = []
    if figure.groups:
        options = "".join(f'<option value="{text(name)}">{text(name)}</option>' for name in figure.groups)
        parts.append(
            f'<label>Show <select data-filter><option value="">all classes</option>{options}</select></label>'
        )
    if len(figure.axes) > 1:
        options = "".join(
            f'<option value="{index}">{text(name)}</option>' for index, name in enumerate(figure.axes)
        )
        parts.append(f"<label>Against <select data-axis>{options}</select></label>")
    if figure.zooms:
        parts += [
            f'<button type="button" data-zoom="{key}">{words}</button>' for key, words in ZOOM_BUTTONS.items()
        ]
    return f'<div class="controls">{"".join(parts)}</div>' if parts else ""


def figures_html(figures: Sequence[Figure], caveat: str = "") -> str:
    """Return the frames of several figures; neighbours of one row stand side by side."""
    parts = []
    for row, members in groupby(figures, key=lambda figure: figure.row):
        drawn = "\n".join(figure_html(figure, caveat) for figure in members)
        parts.append(f'<div class="row">{drawn}</div>' if row else drawn)
    return "\n".join(parts)


def tiles_html(tiles: Mapping[str, tuple[str, str]]) -> str:
    """Return key figures: name -> value and a remark."""
    return (
        '<dl class="tiles">'
        + "".join(
            f'<div class="tile"><dt>{text(name)}</dt><dd>{text(value)}'
            f"{f'<small>{text(remark)}</small>' if remark else ''}</dd></div>"
            for name, (value, remark) in tiles.items()
        )
        + "</dl>"
    )


def table_html(table: pd.DataFrame, caption: str, *, words: bool = False) -> str:
    """Return a table; columns are named by replacing underscores."""
    names = [str(name) for name in table.columns]
    head = "".join(f'<th scope="col">{text(name.replace("_", " "))}</th>' for name in names)
    rows = "".join(
        "<tr>"
        + "".join(f"<td>{text(_cell(name, value))}</td>" for name, value in zip(names, row, strict=True))
        + "</tr>"
        for row in table.itertuples(index=False)
    )
    style = ' class="words"' if words else ""
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{text(caption)}"><table{style}>'
        f"<caption>{text(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _cell(column: str, value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if column.startswith("bytes"):
        return format_bytes(float(value))
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)


def list_html(items: Sequence[str], style: str = "") -> str:
    """Return a list of sentences."""
    return f'<ul class="{style}">' + "".join(f"<li>{text(item)}</li>" for item in items) + "</ul>"


def page_html(title: str, lead: str, banner: str, sections: Sequence[Section]) -> str:
    """Return the whole page.

    Args:
        title: Plain text.
        lead: One line below the title, plain text.
        banner: HTML above everything, escaped already; may be empty.
        sections: In order.
    """
    figures = [figure.spec() for section in sections for figure in section.figures if figure.traces]
    links = "".join(f'<li><a href="#{section.id}">{text(section.title)}</a></li>' for section in sections)
    body = "\n".join(
        f'<section id="{section.id}" aria-labelledby="h-{section.id}"><h2 id="h-{section.id}">'
        f"{text(section.title)}</h2>\n{section.body}\n</section>"
        for section in sections
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<link rel="icon" href="data:,">
<title>{text(title)}</title>
<style>{_asset("report.css")}</style>
</head>
<body>
<a class="skip" href="#{sections[0].id}">Skip to the content</a>
<header><h1>{text(title)}</h1><p class="lead">{text(lead)}</p>{banner}</header>
<nav aria-label="Sections"><ul>{links}</ul></nav>
<main>
{body}
</main>
<footer>Made by fedsim. Figures are drawn by plotly.js (MIT licence), which is part of this file.</footer>
<script type="application/json" id="figures">{script_json(figures)}</script>
{_library() if figures else '<script type="text/plain" id="library"></script>'}
<script>{_asset("report.js")}</script>
</body>
</html>
"""


def script_json(value: Any) -> str:
    """Return JSON that cannot end the script element it stands in."""
    told = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return told.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _library() -> str:
    """plotly.js, packed: a third of its size, the same bytes every time."""
    source = files("plotly").joinpath("package_data", "plotly.min.js").read_bytes()
    packed = base64.b64encode(gzip.compress(source, compresslevel=9, mtime=0)).decode("ascii")
    return f'<script type="text/plain" id="library">{packed}</script>'


@cache
def _asset(name: str) -> str:
    return files("fedsim.experiment.report").joinpath("assets", name).read_text(encoding="utf-8")
