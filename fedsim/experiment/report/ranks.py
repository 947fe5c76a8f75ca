"""What did the ranks do? Plans by class and layer, budgets, the adapter's spectrum, the tail's weight."""

import numpy as np
import pandas as pd

from fedsim.experiment.load import Run
from fedsim.experiment.record import ADAPTER
from fedsim.experiment.report import tables
from fedsim.experiment.report.figure import (
    HOUR_S,
    SYMBOLS,
    WHOLE,
    Figure,
    Trace,
    axis,
    colour,
    label,
    line,
    numbers,
)
from fedsim.experiment.report.spectra import adapter_singular_values

MAX_MARKS = 3000
BUDGETS = {"used_download": "download window", "used_memory": "memory", "used_seconds": "time to deadline"}
ENERGY_FLOOR = 1e-12


def rank_figures(run: Run) -> list[Figure]:
    """Return the figures of plans and budgets."""
    if run.assignments.empty:
        return [Figure("ranks", "Ranks", empty="No plan was ever made.")]
    return [*_by_class(run), *_by_layer(run), _use(run), _gate(run)]


def adapter_figures(run: Run) -> list[Figure]:
    """Return the figures of the global adapter."""
    return [_energy(run), _adapter_rank(run), _singular_values(run)]


def _by_class(run: Run) -> list[Figure]:
    """Small multiples: mean received and trained rank per version, one figure per class."""
    table = run.assignments
    top, end_h = float(pd.to_numeric(table["mean_total"]).max()), run.end_s / HOUR_S
    figures = []
    for number, (name, group) in enumerate(table.groupby("device_class")):
        per_version = group.groupby("version")[["mean_total", "mean_trained"]].mean()
        hours = group.groupby("version")["dispatched_at_s"].min() / HOUR_S
        styles = (
            ("mean_total", "received", {"color": colour(1), "width": 2}, "circle-open"),
            ("mean_trained", "trained", {"color": colour(0), "width": 2, "dash": "dash"}, "square"),
        )
        traces = [
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": words,
                "x": numbers(hours),
                "y": numbers(per_version[column]),
                "line": style,
                "marker": {"symbol": symbol, "size": 7},
                "hovertemplate": f"{words} %{{y:.1f}}<extra></extra>",
            }
            for column, words, style, symbol in styles
        ]
        layout = {
            "xaxis": axis("virtual hours", range=[-0.04 * end_h, 1.04 * end_h]),
            "yaxis": axis("mean rank", range=[0, top * 1.08]),
        }
        figures.append(
            Figure(
                f"rank-class-{number}",
                f"Ranks of {name}",
                "",
                traces,
                layout,
                priced=True,
                row="class",
                height_px=250,
            )
        )
    return figures


def _by_layer(run: Run) -> list[Figure]:
    table = tables.layer_ranks(run)
    figures = []
    for column, words in (("total", "Received"), ("trained", "Trained")):
        grid = table.pivot_table(index="layer", columns="version", values=column)
        grid = grid.reindex([layer for layer in run.layers if layer in grid.index])
        trace: Trace = {
            "type": "heatmap",
            "x": [int(version) for version in grid.columns],
            "y": [short(layer) for layer in grid.index],
            "z": [numbers(row) for row in grid.to_numpy()],
            "colorscale": "Cividis",
            "zmin": 0,
            "zmax": float(table["total"].max()),
            "colorbar": {"title": {"text": "rank"}, "thickness": 12},
            "hovertemplate": "%{y}, version %{x}: %{z:.1f}<extra></extra>",
        }
        figures.append(
            Figure(
                f"rank-layer-{column}",
                f"{words} rank by layer and version (mean over clients)",
                "",
                [trace],
                {"xaxis": axis("version", **WHOLE), "yaxis": axis("", autorange="reversed", type="category")},
                height_px=min(160 + 14 * len(grid), 900),
                row="layer",
            )
        )
    return figures


def short(layer: str) -> str:
    """Drop what all names of modules have in common."""
    return label(layer.replace("model.layers.", "").replace("self_attn.", "").replace("mlp.", ""))


def _use(run: Run) -> Figure:
    title = "How much of its budgets each final plan uses"
    table = run.assignments
    known = {name: words for name, words in BUDGETS.items() if table[name].notna().any()}
    if not known:
        return Figure("budget-use", title, empty="This record does not tell prices, so use cannot be told.")
    traces = [
        {
            "type": "box",
            "name": words,
            "x": [label(text) for text in table["device_class"]],
            "y": numbers(100.0 * table[name]),
            "marker": {"color": colour(index), "size": 4, "symbol": SYMBOLS[index]},
            "line": {"width": 1.5},
            "boxpoints": "outliers",
        }
        for index, (name, words) in enumerate(known.items())
    ]
    layout = {
        "boxmode": "group",
        "xaxis": axis("", type="category", categoryorder="category ascending"),
        "yaxis": axis("% of budget", rangemode="tozero"),
    }
    note = (
        "At the rates that the server estimated when it made the plan. A box near 100 % is the budget that "
        "binds; memory includes the base model and its activations."
    )
    return Figure("budget-use", title, note, traces, layout, priced=True)


def _gate(run: Run) -> Figure:
    title = "Weight of the frozen tail (lambda) at dispatch"
    gates = run.assignments[pd.to_numeric(run.assignments["gate"]).notna()]
    if gates.empty or (pd.to_numeric(gates["gate"]) == 1.0).all():
        return Figure("gate", title, empty="The tail was fully open (lambda = 1) in every assignment.")
    if len(gates) > MAX_MARKS:
        gates = gates.iloc[np.linspace(0, len(gates) - 1, MAX_MARKS).astype(int)]
    traces = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": label(name),
            "x": numbers(group["dispatched_at_s"] / HOUR_S),
            "y": numbers(pd.to_numeric(group["gate"])),
            "marker": {"color": colour(index), "symbol": SYMBOLS[index % len(SYMBOLS)], "size": 7},
        }
        for index, (name, group) in enumerate(gates.groupby("device_class"))
    ]
    layout = {"xaxis": axis("virtual hours"), "yaxis": axis("lambda", range=[0, 1.05])}
    note = "1 is fully open: from there on the received columns that a client does not train count in full."
    return Figure("gate", title, note, traces, layout, priced=True)


def _energy(run: Run) -> Figure:
    title = "Energy of the global adapter by layer and version"
    table = run.layer_spectra
    if table.empty:
        return Figure("energy", title, empty="No version was made.")
    grid = table.pivot_table(index="layer", columns="version", values="energy", aggfunc="last")
    grid = grid.reindex([layer for layer in run.layers if layer in grid.index])
    values = np.log10(np.maximum(grid.to_numpy(dtype=float), ENERGY_FLOOR))
    trace: Trace = {
        "type": "heatmap",
        "x": [int(version) for version in grid.columns],
        "y": [short(layer) for layer in grid.index],
        "z": [numbers(row) for row in values],
        "colorscale": "Cividis",
        "colorbar": {"title": {"text": "log10"}, "thickness": 12},
        "hovertemplate": "%{y}, version %{x}: 10^%{z:.2f}<extra></extra>",
    }
    note = "Sum of squared singular values, as a power of ten."
    layout = {"xaxis": axis("version", **WHOLE), "yaxis": axis("", autorange="reversed", type="category")}
    return Figure("energy", title, note, [trace], layout, height_px=min(160 + 14 * len(grid), 900))


def _adapter_rank(run: Run) -> Figure:
    title = "Rank of the global adapter per version"
    if run.layer_spectra.empty:
        return Figure("adapter-rank", title, empty="No version was made.", row="adapter")
    per = run.layer_spectra.groupby("version")["rank"].agg(["min", "mean", "max"])
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": words,
            "x": numbers(per.index),
            "y": numbers(per[name]),
            "line": line(index),
            "marker": {"symbol": SYMBOLS[index], "size": 7},
        }
        for index, (name, words) in enumerate(
            {"max": "largest layer", "mean": "mean", "min": "smallest layer"}.items()
        )
    ]
    layout = {"xaxis": axis("version", **WHOLE), "yaxis": axis("rank", rangemode="tozero")}
    return Figure("adapter-rank", title, "", traces, layout, row="adapter")


def _singular_values(run: Run) -> Figure:
    title = "How fast the spectrum of the final adapter falls"
    found = _final_spectra(run)
    if not found:
        why = "There is no final adapter" + (" (stub)." if run.is_stub else " (yet).")
        return Figure("spectrum", title, empty=why, row="adapter")
    traces: list[Trace] = []
    for layer, values in found.items():
        energy = np.cumsum(np.square(values))
        if not len(values) or energy[-1] <= 0.0:
            continue
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": short(layer),
                "showlegend": False,
                "x": list(range(1, len(values) + 1)),
                "y": numbers(100.0 * energy / energy[-1]),
                "line": {"color": colour(0), "width": 1},
                "opacity": 0.45,
                "hovertemplate": "%{y:.1f} % in %{x} columns<extra>" + short(layer) + "</extra>",
            }
        )
    layout = {"xaxis": axis("columns kept"), "yaxis": axis("% of energy", range=[0, 102])}
    note = "One line per layer: what share of the energy the first columns hold."
    return Figure("spectrum", title, note, traces, layout, row="adapter")


def _final_spectra(run: Run) -> dict[str, np.ndarray]:
    """Take the adapter on disk; else the newest spectra that were measured."""
    found = adapter_singular_values(run.directory / ADAPTER)
    if found or run.spectra.empty:
        return found
    newest = run.spectra[run.spectra["version"] == run.spectra["version"].max()]
    return {
        str(layer): np.asarray(values)
        for layer, values in zip(newest["layer"], newest["singular_values"], strict=True)
    }
