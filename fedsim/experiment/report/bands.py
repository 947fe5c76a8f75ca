"""How are several seeds of several methods drawn? Lines of means in bands, and grouped bars."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from fedsim.experiment.load import Run
from fedsim.experiment.report.figure import (
    DASHES,
    GIGA,
    HOUR_S,
    SYMBOLS,
    Figure,
    Trace,
    axis,
    colour,
    label,
    numbers,
)
from fedsim.experiment.report.learning import BYTES, HOURS, TITLES, metric_names

GRID = 120
PATTERNS = ("", "/", ".", "x", "-", "|", "+", "\\")
Curve = tuple[np.ndarray, np.ndarray]
Groups = Mapping[str, Sequence[Run]]


def band_figures(groups: Groups) -> list[Figure]:
    """Return, for each metric, one figure over virtual time and one over bytes."""
    names = dict.fromkeys(name for runs in groups.values() for run in runs for name in metric_names(run))
    figures = []
    for name in names:
        title = TITLES.get(name, name.replace("_", " ")).split(" (", maxsplit=1)[0]
        identity = "".join(letter if letter.isalnum() else "-" for letter in name)
        for key, words, place in (("time", HOURS, _hours), ("bytes", BYTES, _gigabytes)):
            curves = {text: [_curve(run, name, place) for run in runs] for text, runs in groups.items()}
            heading = f"{title} over {'virtual time' if key == 'time' else 'bytes'}"
            figures.append(_bands(f"{identity}-{key}", heading, words, title, curves, f"metric-{identity}"))
    return figures


def rank_figure(groups: Groups) -> Figure:
    """Return the mean trained rank per version of each method."""
    curves = {text: [_ranks(run) for run in runs] for text, runs in groups.items()}
    return _bands("ranks", "Mean trained rank over versions", "version", "rank", curves, "")


def _hours(table: pd.DataFrame) -> pd.Series:
    return table["time_s"] / HOUR_S


def _gigabytes(table: pd.DataFrame) -> pd.Series:
    return (table["bytes_down"] + table["bytes_up"]) / GIGA


def _curve(run: Run, name: str, place: Callable[[pd.DataFrame], pd.Series]) -> Curve:
    table = run.evaluations
    if name not in table or "bytes_down" not in table:
        return np.zeros(0), np.zeros(0)
    values = pd.to_numeric(table[name])
    known = values.notna()
    return place(table[known]).to_numpy(dtype=float), values[known].to_numpy(dtype=float)


def _ranks(run: Run) -> Curve:
    means = pd.to_numeric(run.assignments["mean_trained"]).groupby(run.assignments["version"]).mean().dropna()
    return means.index.to_numpy(dtype=float), means.to_numpy(dtype=float)


def mean_band(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """Return places, mean, lowest and highest where all curves have values; None where they share nothing."""
    drawn = [(x, y) for x, y in curves if len(x)]
    if not drawn:
        return None
    low, high = max(x[0] for x, _ in drawn), min(x[-1] for x, _ in drawn)
    if high < low:
        return None
    inner = np.concatenate([x for x, _ in drawn])
    places = np.unique(
        np.concatenate([np.linspace(low, high, GRID), inner[(inner >= low) & (inner <= high)]])
    )
    values = np.stack([np.interp(places, x, y) for x, y in drawn])
    return places, values.mean(axis=0), values.min(axis=0), values.max(axis=0)


def _bands(
    identity: str, title: str, across: str, up: str, groups: Mapping[str, Sequence[Curve]], row: str
) -> Figure:
    traces: list[Trace] = []
    for index, (text, curves) in enumerate(groups.items()):
        traces += _group(index, text, curves)
    if not traces:
        return Figure(identity, title, empty="Not measured in any of these runs.", row=row)
    layout = {"xaxis": axis(across), "yaxis": axis(up)}
    return Figure(identity, title, "", traces, layout, row=row, priced=bool(row))


def _group(index: int, text: str, curves: Sequence[Curve]) -> list[Trace]:
    band = mean_band(curves)
    if band is None:
        return []
    places, mean, low, high = band
    tint, name = colour(index), label(text)
    shared = {"legendgroup": name, "type": "scatter"}
    quiet = {**shared, "showlegend": False, "hoverinfo": "skip"}
    traces: list[Trace] = []
    if len(curves) > 1:
        traces.append(
            {
                **quiet,
                "x": numbers(np.concatenate([places, places[::-1]])),
                "y": numbers(np.concatenate([high, low[::-1]])),
                "mode": "lines",
                "fill": "toself",
                "fillcolor": tint,
                "opacity": 0.18,
                "line": {"width": 0},
            }
        )
    traces += [
        {
            **quiet,
            "x": numbers(x),
            "y": numbers(y),
            "mode": "markers" if len(curves) == 1 else "lines+markers",
            "line": {"color": tint, "width": 0.8},
            "marker": {"size": 6, "symbol": SYMBOLS[index % len(SYMBOLS)], "color": tint},
            "opacity": 0.9 if len(curves) == 1 else 0.4,
        }
        for x, y in curves
        if len(x)
    ]
    traces.append(
        {
            **shared,
            "name": name,
            "x": numbers(places),
            "y": numbers(mean),
            "mode": "lines",
            "line": {"color": tint, "width": 2.5, "dash": DASHES[index % len(DASHES)]},
            "hovertemplate": "%{y:.4g}<extra>" + name + "</extra>",
        }
    )
    return traces


def grouped_bars(
    identity: str, title: str, unit: str, groups: Mapping[str, pd.Series], *, priced: bool = False
) -> Figure:
    """Return bars, one group per entry and one bar per method."""
    entries = sorted({str(name) for values in groups.values() for name in values.index})
    if not entries:
        return Figure(identity, title, empty="Nothing of the kind in these runs.")
    traces = [
        {
            "type": "bar",
            "name": label(text),
            "x": [label(name.replace("_", " ")) for name in entries],
            "y": numbers(values.reindex(entries, fill_value=0.0)),
            "marker": {
                "color": colour(index),
                "pattern": {
                    "shape": PATTERNS[index % len(PATTERNS)],
                    "fgcolor": "#fff",
                    "fillmode": "overlay",
                },
            },
            "hovertemplate": f"%{{y:.4g}} {unit}<extra>{label(text)}</extra>",
        }
        for index, (text, values) in enumerate(groups.items())
    ]
    layout = {"barmode": "group", "xaxis": axis("", type="category"), "yaxis": axis(unit)}
    return Figure(identity, title, "", traces, layout, priced=priced)
