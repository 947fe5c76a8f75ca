"""How does a picture become a page to zoom into? With plotly, an optional extra; without a network."""

from typing import Any

import numpy as np

from fedsim.errors import MissingExtraError
from fedsim.world.draw.panels import Panel, Picture, Strips

_PANEL_PX = 380


def to_html(picture: Picture) -> bytes:
    """Draw a picture on a page that holds all it needs.

    Raises:
        MissingExtraError: If plotly is not installed.
    """
    try:
        from plotly.subplots import make_subplots  # noqa: PLC0415 - an optional extra
    except ModuleNotFoundError:
        raise MissingExtraError(
            'an HTML page needs plotly; install it: pip install "fedsim-lora[plot]", or ask for .png'
        ) from None
    figure = make_subplots(rows=len(picture.panels), cols=1, subplot_titles=[p.title for p in picture.panels])
    for row, panel in enumerate(picture.panels, start=1):
        _draw(panel, figure, row)
    figure.update_layout(title=picture.title, height=_PANEL_PX * len(picture.panels), template="plotly_white")
    page: str = figure.to_html(include_plotlyjs=True, full_html=True, div_id="traces")
    return page.encode()


def _draw(panel: Panel, figure: Any, row: int) -> None:
    if panel.strips is not None:
        _draw_strips(panel.strips, figure, row)
    for line in panel.lines:
        shape = "hv" if line.steps else "linear"
        figure.add_scatter(
            x=line.x.tolist(),
            y=line.y.tolist(),
            name=line.label,
            mode="lines",
            line_shape=shape,
            row=row,
            col=1,
        )
    x_range = None if panel.x_range is None else list(panel.x_range)
    figure.update_xaxes(title_text=panel.x_label, type=panel.x_scale, range=x_range, row=row, col=1)
    figure.update_yaxes(title_text=panel.y_label, type=panel.y_scale, row=row, col=1)


def _draw_strips(strips: Strips, figure: Any, row: int) -> None:
    """One curve with gaps holds all bars: thousands of separate ones would be slow."""
    gap = np.full(len(strips.row), np.nan)
    x = np.stack([strips.start, strips.end, gap], axis=1).ravel()
    y = np.stack([strips.row + 0.5, strips.row + 0.5, gap], axis=1).ravel()
    cells = [[None if np.isnan(value) else float(value) for value in values] for values in (x, y)]
    figure.add_scatter(
        x=cells[0], y=cells[1], mode="lines", line_width=5, name="online", connectgaps=False, row=row, col=1
    )
    # Names come from a file; they are identifiers, so that none is markup.
    places = (np.arange(len(strips.names)) + 0.5).tolist()
    figure.update_yaxes(tickvals=places, ticktext=list(strips.names), row=row, col=1)
