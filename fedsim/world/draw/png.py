"""How does a picture become a PNG? With matplotlib, which is an optional extra."""

import io
from typing import Any

import numpy as np

from fedsim.errors import MissingExtraError
from fedsim.world.draw.panels import Panel, Picture, Strips

_WIDTH_IN, _PANEL_IN, _DPI = 9.0, 3.2, 120


def to_png(picture: Picture) -> bytes:
    """Draw a picture.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    try:
        # No global state and no window system: a figure with its own canvas.
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - an optional extra
        from matplotlib.figure import Figure  # noqa: PLC0415 - as above
    except ModuleNotFoundError:
        raise MissingExtraError(
            'a PNG needs matplotlib; install it: pip install "fedsim-lora[plot]", or ask for .html'
        ) from None
    figure = Figure(figsize=(_WIDTH_IN, _PANEL_IN * len(picture.panels)), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(picture.title)
    for panel, axes in zip(
        picture.panels, figure.subplots(len(picture.panels), squeeze=False)[:, 0], strict=True
    ):
        _draw(panel, axes)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _draw(panel: Panel, axes: Any) -> None:
    axes.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
    axes.set(xscale=panel.x_scale, yscale=panel.y_scale)
    if panel.strips is not None:
        _draw_strips(panel.strips, axes)
    for line in panel.lines:
        axes.plot(line.x, line.y, drawstyle="steps-post" if line.steps else "default", linewidth=1.0)
    if panel.lines:
        axes.legend([line.label for line in panel.lines], fontsize="small")
        if panel.y_scale == "linear":
            axes.set_ylim(bottom=0)
    if panel.x_range is not None:
        axes.set_xlim(*panel.x_range)


def _draw_strips(strips: Strips, axes: Any) -> None:
    for row in range(len(strips.names)):
        mine = strips.row == row
        bars = np.stack([strips.start[mine], strips.end[mine] - strips.start[mine]], axis=1)
        axes.broken_barh(bars.tolist(), (row + 0.1, 0.8))
    axes.set_ylim(0, len(strips.names))
