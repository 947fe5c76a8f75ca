"""Did the model get better? Loss, accuracy and task metrics over virtual time and over bytes; drift."""

from collections.abc import Mapping, Sequence

import pandas as pd

from fedsim.experiment.load import Run
from fedsim.experiment.report.figure import (
    GIGA,
    HOUR_S,
    WHOLE,
    Figure,
    Trace,
    axis,
    colour,
    label,
    line,
    numbers,
)

NOT_METRICS = frozenset({"version", "time_s", "round", "num_updates", "bytes_down", "bytes_up"})
TITLES = {
    "loss": "Held-out loss (nats per token, lower is better)",
    "token_accuracy": "Token accuracy (higher is better)",
    "rouge_l": "ROUGE-L of generated answers (higher is better)",
}
HOURS = "virtual hours"
BYTES = "GB over the links, both ways"
DRIFT_NOTE = (
    "How far local updates are from what unbounded clients would have learned. Distances mean little without "
    "the length of the update and its angle, so these stand beside them."
)


def metric_names(run: Run) -> list[str]:
    """Names of what was measured on held-out data."""
    return [
        name
        for name in run.evaluations.columns
        if name not in NOT_METRICS and name not in run.measures.columns
    ]


def last_value(run: Run, name: str) -> float | None:
    """Newest known value of a metric."""
    if name not in run.evaluations:
        return None
    known = pd.to_numeric(run.evaluations[name]).dropna()
    return None if known.empty else float(known.iloc[-1])


def learning_figures(run: Run) -> list[Figure]:
    """Return one figure per metric; loss also shows the training loss of the updates."""
    return [_metric(run, name) for name in metric_names(run)] + [_drift(run)]


def moments(run: Run) -> Mapping[str, list[float | None]]:
    """Return where the evaluations lie on each axis."""
    table = run.evaluations
    axes = {HOURS: numbers(table["time_s"] / HOUR_S)}
    if {"bytes_down", "bytes_up"} <= set(table.columns):
        axes[BYTES] = numbers((table["bytes_down"] + table["bytes_up"]) / GIGA)
    return axes


def _metric(run: Run, name: str) -> Figure:
    title = TITLES.get(name, label(name.replace("_", " ")))
    identity = "metric-" + "".join(letter if letter.isalnum() else "-" for letter in name)
    values = pd.to_numeric(run.evaluations[name])
    if values.notna().sum() == 0:
        why = (
            "Nothing was trained (stub), so there is nothing to measure." if run.is_stub else "Not measured."
        )
        return Figure(identity, title, empty=why)
    axes = moments(run)
    drawn = [_measured(numbers(values), axes[HOURS], run.evaluations["version"])]
    choices: dict[str, list[Sequence[float | None]]] = {name: [x] for name, x in axes.items()}
    training = _training_loss(run) if name == "loss" else None
    if training is not None:
        drawn.append(training[0])
        choices[HOURS].append(training[0]["x"])
        if BYTES in choices:
            choices[BYTES].append(training[1])
    return Figure(
        identity,
        title,
        "Each point is one version of the global model; the first is the base model.",
        drawn,
        {"xaxis": axis(HOURS), "yaxis": axis(title.split(" (", maxsplit=1)[0])},
        axes=choices,
        priced=True,
    )


def _measured(values: Sequence[float | None], hours: Sequence[float | None], versions: pd.Series) -> Trace:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "held out",
        "x": hours,
        "y": values,
        "text": [f"version {version}" for version in versions],
        "line": line(0),
        "marker": {"size": 8},
        "hovertemplate": "%{y:.4f}<br>%{text}<extra></extra>",
    }


def _training_loss(run: Run) -> tuple[Trace, list[float | None]] | None:
    """Return mean local loss of the updates in each version over time, and its places in bytes."""
    table = run.assignments
    done = table[(table["outcome"] == "aggregated") & pd.to_numeric(table["loss"]).notna()]
    if done.empty:
        return None
    per_version = done.assign(loss=pd.to_numeric(done["loss"])).groupby("settled_at_s")["loss"].mean()
    settled = table[table["settled_at_s"].notna()].sort_values("settled_at_s")
    moved = (settled["bytes_down"] + settled["bytes_up"]).cumsum() / GIGA
    at = [float(moved[settled["settled_at_s"] <= time_s].iloc[-1]) for time_s in per_version.index]
    trace: Trace = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "local, mean of aggregated updates",
        "x": numbers(per_version.index.to_numpy() / HOUR_S),
        "y": numbers(per_version),
        "line": line(1, width=1.5),
        "marker": {"size": 5, "symbol": "square-open"},
        "hovertemplate": "%{y:.4f}<extra>local loss</extra>",
    }
    return trace, numbers(at)


def _drift(run: Run) -> Figure:
    title = "Drift and what goes with it"
    names = [name for name in run.measures.columns if name not in ("time_s", "version")]
    usable = [name for name in names if pd.to_numeric(run.measures[name]).notna().any()]
    if not usable:
        return Figure("drift", title, empty="Not measured in this run; set measure.drift in the scenario.")
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": label(name.replace("_", " ")),
            "x": numbers(run.measures["version"]),
            "y": numbers(pd.to_numeric(run.measures[name])),
            "line": line(index),
            "visible": True if index < 6 else "legendonly",
            "marker": {"color": colour(index)},
        }
        for index, name in enumerate(usable)
    ]
    layout = {"xaxis": axis("version", **WHOLE), "yaxis": axis("value", type="log")}
    return Figure("drift", title, DRIFT_NOTE, traces, layout)
