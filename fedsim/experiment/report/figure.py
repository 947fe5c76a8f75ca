"""What is a figure? Traces and a layout for plotly.js, words around them, and words instead where data lack.

Everything is plain JSON. Colours come from one palette that colour-blind readers can tell apart, and whatever
a colour says is also said by a shape, a dash or a word.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Trace = dict[str, Any]

# Okabe and Ito, "Color Universal Design", 2008; yellow is left out, it is too pale for lines on white
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#777777")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "triangle-down", "cross", "star")
PHASE_COLOURS = {
    "download": "#56B4E9",
    "train": "#0072B2",
    "upload": "#009E73",
    "waiting": "#C8CDD2",
    "online": "#EEF1F4",
}
OUTCOME_STYLES: Mapping[str, tuple[str, str, str]] = {
    "aggregated": ("#009E73", "circle", "●"),
    "dropped": ("#D55E00", "x", "✖"),
    "timed_out": ("#CC79A7", "triangle-left", "◀"),
    "late": ("#E69F00", "diamond", "◆"),
    "stale": ("#777777", "square", "■"),
    "failed": ("#000000", "cross", "✚"),
    "discarded": ("#777777", "star", "★"),
    "cancelled": ("#777777", "circle-open", "○"),
}
HOUR_S = 3600.0
WHOLE: Mapping[str, object] = {"tickformat": ",d", "tick0": 0, "minallowed": -1}  # an axis that counts
GIGA = 1e9


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a page.

    Args:
        id: Unique on the page, letters and hyphens.
        title: Says what is shown.
        note: How to read it, one or two sentences of plain text.
        traces: For plotly.js; none where there is nothing to show.
        layout: For plotly.js, on top of the common one.
        empty: Why there is nothing to show; required where `traces` is empty.
        axes: Choices of the horizontal axis: label -> values per trace. The first is shown.
        groups: Values of ``meta`` by which traces can be filtered, in order.
        key: What colours mean, above the drawing: words, colour, and a sign that stands for the shape.
        zooms: Whether the time axis gets buttons.
        priced: Whether it shows hours or bytes that may be those of another model.
        row: Neighbours of one row stand side by side; empty where the figure has all the width.
        height_px: Of the drawing.
    """

    id: str
    title: str
    note: str = ""
    traces: Sequence[Trace] = ()
    layout: Mapping[str, Any] = field(default_factory=dict)
    empty: str = ""
    axes: Mapping[str, Sequence[Sequence[float | None]]] = field(default_factory=dict)
    groups: Sequence[str] = ()
    zooms: bool = False
    key: Sequence[tuple[str, str, str]] = ()
    priced: bool = False
    row: str = ""
    height_px: int = 360

    def spec(self) -> dict[str, Any]:
        """What plotly.js is told."""
        return {
            "id": self.id,
            "data": list(self.traces),
            "layout": {"height": self.height_px, **self.layout},
            "small": bool(self.row),
            "axes": [[label, values] for label, values in self.axes.items()],
        }


def label(text: object) -> str:
    """Make a string from a file safe for plotly.js, which reads some markup in labels."""
    return html.escape(str(text), quote=False)


def colour(index: int) -> str:
    """Colour of the n-th of several equals."""
    return PALETTE[index % len(PALETTE)]


def line(index: int, **style: object) -> dict[str, object]:
    """Line of the n-th of several equals; dashes differ, too."""
    return {"color": colour(index), "dash": DASHES[index % len(DASHES)], "width": 2, **style}


def axis(title: str, **more: object) -> dict[str, object]:
    """Return an axis with a title."""
    return {"title": {"text": title}, "automargin": True, **more}


def numbers(values: Any) -> list[float | None]:
    """Plain numbers with enough digits to draw; what is missing or not finite is None."""
    array = np.asarray(values, dtype=float)
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in array]
