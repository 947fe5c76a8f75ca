"""Where did virtual time go? For each version: what the update did that the server waited for longest."""

import numpy as np
import pandas as pd

from fedsim.experiment.load import Run
from fedsim.experiment.report.figure import HOUR_S, PHASE_COLOURS, WHOLE, Figure, Trace, axis, numbers

KINDS = ("before dispatch", "download", "train", "upload", "until closed")
STYLES = {
    "before dispatch": ("#EEF1F4", "."),
    "download": (PHASE_COLOURS["download"], ""),
    "train": (PHASE_COLOURS["train"], ""),
    "upload": (PHASE_COLOURS["upload"], ""),
    "until closed": ("#E69F00", "/"),
}
TITLE = "Where virtual time went: what each round waited for"
NOTE = (
    "Each bar is a round, or a version where there are no rounds, and follows its last counted update: "
    "from its dispatch over download, training and upload until the round closed. A long last part is a "
    "deadline that nobody met any more; before dispatch nobody was at work."
)


def round_waits(run: Run) -> pd.DataFrame:
    """Return hours by round (rows) and kind of waiting (columns) along the last update that counted."""
    closed = run.rounds.sort_values("time_s")
    table = run.assignments
    rows, began_s = [], 0.0
    for time_s in closed["time_s"].astype(float):
        mine = table[(table["outcome"] == "aggregated") & (table["settled_at_s"] == time_s)]
        rows.append(_parts(mine, began_s, time_s))
        began_s = time_s
    return pd.DataFrame(rows, columns=list(KINDS)) / HOUR_S


def _parts(mine: pd.DataFrame, began_s: float, closed_s: float) -> list[float]:
    """Cut a round at the instants of its last update; a round without one waited for its deadline."""
    if mine.empty:
        return [0.0, 0.0, 0.0, 0.0, closed_s - began_s]
    last = pd.to_numeric(mine["uploaded_at_s"]).to_numpy().argmax()
    names = ("dispatched_at_s", "downloaded_at_s", "trained_at_s", "uploaded_at_s")
    cuts = [began_s, *(float(mine[name].iloc[last]) for name in names), closed_s]
    # An update may have begun before the version that it became part of.
    return [float(part) for part in np.diff(np.clip(cuts, began_s, closed_s))]


def wait_figure(run: Run) -> Figure:
    """Draw one bar per round."""
    if run.rounds.empty:
        return Figure("waits", TITLE, empty="No round was closed.")
    table = round_waits(run)
    numbered = list(range(1, len(table) + 1))
    traces: list[Trace] = [
        {
            "type": "bar",
            "name": kind,
            "x": numbered,
            "y": numbers(table[kind]),
            "marker": {
                "color": STYLES[kind][0],
                "pattern": {"shape": STYLES[kind][1], "fgcolor": "#555", "fillmode": "overlay"},
            },
            "hovertemplate": f"{kind} %{{y:.2f}} h<extra>%{{x}}</extra>",
        }
        for kind in KINDS
    ]
    layout = {"barmode": "stack", "xaxis": axis("round", **WHOLE), "yaxis": axis("virtual hours")}
    return Figure("waits", TITLE, NOTE, traces, layout, priced=True)


def wait_sentence(run: Run) -> list[str]:
    """Say in one sentence what the rounds of a run waited for."""
    if run.rounds.empty:
        return []
    sums = round_waits(run).sum()
    whole = float(sums.sum())
    if whole <= 0.0:
        return []
    parts = ", ".join(f"{kind} {100.0 * hours / whole:.0f} %" for kind, hours in sums.items() if hours > 0.0)
    return [f"Virtual time along the last update of each round: {parts}."]
