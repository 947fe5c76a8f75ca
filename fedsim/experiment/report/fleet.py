"""What happened on the fleet? Strip chart, counts, participation, staleness, waste, and where time went."""

from dataclasses import replace

import numpy as np
import pandas as pd

from fedsim.experiment.load import Run
from fedsim.experiment.report import tables
from fedsim.experiment.report.figure import (
    GIGA,
    HOUR_S,
    OUTCOME_STYLES,
    PHASE_COLOURS,
    Figure,
    Trace,
    axis,
    colour,
    label,
    numbers,
)

MAX_CLIENTS = 150
MAX_POINTS = 2000
ROW_PX, ROW_FRAME_PX = 15, 110  # as in report.js
NO_ASSIGNMENTS = "No device was ever given work in this run."
STRIP_NOTE = (
    "One row per device that was given work, grouped by class. Pale: online, known from its first assignment "
    "on. Drag to zoom, double-click to go back, or use the buttons."
)


def fleet_figures(run: Run) -> list[Figure]:
    """Return the figures of the section on the fleet."""
    return [strip_chart(run), _online(run)]


def cost_figures(run: Run) -> list[Figure]:
    """Return the figures of the section on cost and fairness."""
    return [_participation(run), _staleness(run), *_waste(run), _time(run), *_energy(run)]


def strip_chart(run: Run) -> Figure:
    """Draw what each client did over time; the busiest clients of each class where there are too many."""
    title = "Fleet: who did what, when"
    if run.assignments.empty:
        return Figure("strip", title, empty=NO_ASSIGNMENTS)
    rows = _rows(run)
    spans = tables.phases(run)
    spans = spans[spans["client"].isin(rows)]
    spans["row"] = spans["client"].map(rows)
    classes = sorted(spans["device_class"].unique())
    traces: list[Trace] = []
    for name in classes:
        traces.append(_online_bars(run, rows, spans[spans["device_class"] == name], name))
        traces += [
            _bars(spans[(spans["device_class"] == name) & (spans["phase"] == phase)], phase, name)
            for phase in tables.PHASES
        ]
    traces += _ends(run, rows)
    hidden = run.assignments["client"].nunique() - len(rows)
    note = STRIP_NOTE + (
        f" Shown are the {len(rows)} busiest devices; {hidden} more took part." if hidden else ""
    )
    return Figure(
        "strip",
        title,
        note,
        traces,
        {
            "barmode": "overlay",
            "bargap": 0.25,
            "xaxis": axis("virtual hours", side="top"),
            "yaxis": _row_axis(list(rows.values())),
            "margin": {"t": 50, "b": 10},
        },
        groups=classes,
        key=_key(run),
        zooms=True,
        priced=True,
        height_px=ROW_FRAME_PX + ROW_PX * len(rows),
    )


def _row_axis(names: list[str]) -> dict[str, object]:
    every = {"tickmode": "linear", "dtick": 1, "tickfont": {"size": 10}}
    rows = [len(names) - 0.5, -0.5]
    return axis("", categoryorder="array", categoryarray=names, range=rows, autorange=False, **every)


def _key(run: Run) -> list[tuple[str, str, str]]:
    phases = [("online", PHASE_COLOURS["online"], "█")]
    phases += [(name, PHASE_COLOURS[name], "█" if name != "waiting" else "▬") for name in tables.PHASES]
    met = set(run.assignments["outcome"].dropna()) - {"aggregated"}
    return phases + [
        (name.replace("_", " "), tint, sign)
        for name, (tint, _, sign) in OUTCOME_STYLES.items()
        if name in met
    ]


def _rows(run: Run) -> dict[int, str]:
    """Client -> name of its row, by class; the busiest ones."""
    table = run.assignments
    busiest = table["client"].value_counts().sort_index().sort_values(ascending=False, kind="stable")
    kept = table[table["client"].isin(busiest.index[:MAX_CLIENTS])].drop_duplicates("client")
    kept = kept.sort_values(["device_class", "device", "client"])
    names = [label(name) for name in kept["device"]]
    twice = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
    return {
        int(client): f"{name} #{client}" if name in twice else name
        for client, name in zip(kept["client"], names, strict=True)
    }


def _bars(spans: pd.DataFrame, phase: str, group: str) -> Trace:
    return {
        "type": "bar",
        "orientation": "h",
        "name": phase,
        "legendgroup": phase,
        "showlegend": False,
        "meta": group,
        "y": list(spans["row"]),
        "x": numbers(spans["duration_s"] / HOUR_S),
        "base": numbers(spans["start_s"] / HOUR_S),
        "width": 0.3 if phase == "waiting" else 0.7,
        "customdata": [
            [int(number), round(duration), "cut" if cut else ""]
            for number, duration, cut in zip(
                spans["assignment"], spans["duration_s"], spans["cut"] & (phase != "waiting"), strict=True
            )
        ],
        "marker": {"color": PHASE_COLOURS[phase]},
        "hovertemplate": f"{phase} %{{customdata[1]}} s %{{customdata[2]}}<br>assignment %{{customdata[0]}}"
        "<extra>%{y}</extra>",
    }


def _online_bars(run: Run, rows: dict[int, str], spans: pd.DataFrame, group: str) -> Trace:
    online = tables.online_spans(run)
    online = online[online["client"].isin(set(spans["client"]))]
    return {
        "type": "bar",
        "orientation": "h",
        "name": "online",
        "legendgroup": "online",
        "showlegend": False,
        "meta": group,
        "y": [rows[int(client)] for client in online["client"]],
        "x": numbers((online["end_s"] - online["start_s"]) / HOUR_S),
        "base": numbers(online["start_s"] / HOUR_S),
        "width": 0.95,
        "marker": {"color": PHASE_COLOURS["online"]},
        "hoverinfo": "skip",
    }


def _ends(run: Run, rows: dict[int, str]) -> list[Trace]:
    """Mark where work ended other than in an aggregate, one trace per class and outcome."""
    table = run.assignments
    lost = table[table["client"].isin(rows) & table["outcome"].notna() & (table["outcome"] != "aggregated")]
    traces: list[Trace] = []
    for (outcome, group), part in lost.groupby(["outcome", "device_class"]):
        tint, symbol, _ = OUTCOME_STYLES[str(outcome)]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": str(outcome).replace("_", " "),
                "legendgroup": str(outcome),
                "showlegend": False,
                "meta": group,
                "x": numbers(part["settled_at_s"] / HOUR_S),
                "y": [rows[int(client)] for client in part["client"]],
                "text": [label(_why(row)) for row in part[["phase", "reason"]].itertuples(index=False)],
                "marker": {"color": tint, "symbol": symbol, "size": 9},
                "hovertemplate": "%{text}<extra>%{y}</extra>",
            }
        )
    return traces


def _why(row: tuple[object, ...]) -> str:
    return ", ".join(str(part) for part in row if isinstance(part, str) and part)


def _online(run: Run) -> Figure:
    title = "Devices online and at work"
    if run.fleet.empty:
        return Figure("online", title, empty="The server never looked at the fleet.")
    seen = run.fleet
    if len(seen) > MAX_POINTS:
        seen = seen.iloc[np.linspace(0, len(seen) - 1, MAX_POINTS).astype(int)]
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": "online, as the server saw it",
            "x": numbers(np.append(seen["time_s"], run.end_s) / HOUR_S),
            "y": [int(count) for count in (*seen["online"], seen["online"].iloc[-1])],
            "line": {"color": colour(0), "shape": "hv"},
        }
    ]
    times, counts = in_flight(run)
    traces.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": "in flight",
            "x": numbers(times / HOUR_S),
            "y": numbers(counts),
            "line": {"color": colour(1), "shape": "hv", "dash": "dash"},
        }
    )
    layout = {"xaxis": axis("virtual hours"), "yaxis": axis("devices", rangemode="tozero")}
    note = "Online counts are samples: one whenever the server looks for clients."
    return Figure("online", title, note, traces, layout, zooms=True, priced=True)


def in_flight(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Return instants and the number of open assignments from each of them on, thinned."""
    begun = pd.to_numeric(run.assignments["dispatched_at_s"]).to_numpy()
    ended = pd.to_numeric(run.assignments["settled_at_s"]).dropna().to_numpy()
    times = np.concatenate([begun, ended])
    steps = np.concatenate([np.ones(len(begun)), -np.ones(len(ended))])
    order = np.argsort(times, kind="stable")
    times, counts = times[order], np.cumsum(steps[order])
    last = np.append(np.diff(times) > 0, True) if len(times) else np.zeros(0, dtype=bool)
    times, counts = times[last], counts[last]
    if len(times) > MAX_POINTS:
        kept = np.linspace(0, len(times) - 1, MAX_POINTS).astype(int)
        times, counts = times[kept], counts[kept]
    return times, counts


def _participation(run: Run) -> Figure:
    title = "Who took part, by class"
    table = tables.participation(run)
    if table.empty:
        return Figure("participation", title, empty=NO_ASSIGNMENTS)
    sizes = pd.to_numeric(table["devices"])
    parts = {
        "contributed": table["contributed"],
        "reached, nothing aggregated": table["reached"] - table["contributed"],
        "never given work": (sizes - table["reached"]).clip(lower=0),
    }
    shades = (("#009E73", ""), ("#E69F00", "/"), ("#C8CDD2", "."))
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": [label(text) for text in table["class"]],
            "x": numbers(pd.to_numeric(values)),
            "marker": {
                "color": tint,
                "pattern": {"shape": pattern, "fgcolor": "#555", "fillmode": "overlay"},
            },
            "hovertemplate": f"%{{x}} {name}<extra>%{{y}}</extra>",
        }
        for (name, values), (tint, pattern) in zip(parts.items(), shades, strict=True)
    ]
    layout = {
        "barmode": "stack",
        "xaxis": axis("devices"),
        "yaxis": axis("", autorange="reversed", type="category"),
    }
    return Figure("participation", title, "", traces, layout, height_px=180 + 28 * len(table))


def _staleness(run: Run) -> Figure:
    title = "Staleness of aggregated updates"
    stale = pd.to_numeric(run.assignments["staleness"])[run.assignments["outcome"] == "aggregated"]
    if stale.empty:
        return Figure("staleness", title, empty="No update was aggregated.")
    if (stale == 0).all():
        why = "Every aggregated update was trained from the version it was added to: staleness 0 throughout."
        return Figure("staleness", title, empty=why)
    counts = stale.value_counts().sort_index()
    trace = {"type": "bar", "x": numbers(counts.index), "y": numbers(counts), "marker": {"color": colour(0)}}
    layout = {"xaxis": axis("versions behind", dtick=1), "yaxis": axis("updates")}
    return Figure("staleness", title, "", [trace], layout, height_px=300)


def _waste(run: Run) -> list[Figure]:
    table = tables.waste(run)
    titles = {"waste-bytes": "Bytes that led to nothing", "waste-hours": "Device-hours that led to nothing"}
    if table.empty:
        return [Figure(name, title, empty="Nothing was lost.", row="waste") for name, title in titles.items()]
    values = {"waste-bytes": table["bytes"] / GIGA, "waste-hours": table["device_hours"]}
    units = {"waste-bytes": "GB", "waste-hours": "device-hours"}
    return [
        Figure(
            name,
            title,
            "",
            [
                {
                    "type": "bar",
                    "orientation": "h",
                    "y": [label(cause.replace("_", " ")) for cause in table["cause"]],
                    "x": numbers(values[name]),
                    "text": [
                        f"{count} assignment{'' if count == 1 else 's'}" for count in table["assignments"]
                    ],
                    "textposition": "auto",
                    "marker": {"color": colour(1)},
                    "hovertemplate": f"%{{x:.3g}} {units[name]}, %{{text}}<extra>%{{y}}</extra>",
                }
            ],
            {"xaxis": axis(units[name]), "yaxis": axis("", autorange="reversed", type="category")},
            priced=True,
            row="waste",
            height_px=150 + 30 * len(table),
        )
        for name, title in titles.items()
    ]


def _time(run: Run) -> Figure:
    title = "Where device time went, by class"
    if run.assignments.empty:
        return Figure("time", title, empty=NO_ASSIGNMENTS)
    note = (
        "Download, training and upload of aggregated updates; waiting is an update that lies at the server "
        "until its version is made; lost is work that was not aggregated."
    )
    return _by_class(Figure("time", title, note, priced=True), tables.time_by_class(run), "device-hours", "h")


def _energy(run: Run) -> list[Figure]:
    """Energy by class; no figure where the fleet has no coefficients."""
    table = tables.energy_by_class(run)
    if table.empty:
        return []
    note = (
        "Beyond idling: a class's power of training, and its network's radio while data moves. Only what the "
        "coefficients of the scenario count; lost is work that was not aggregated."
    )
    figure = Figure("joules", "Energy of the devices, by class", note, priced=True)
    return [_by_class(figure, table, "Wh", "Wh")]


def _by_class(figure: Figure, table: pd.DataFrame, title: str, unit: str) -> Figure:
    """Fill in stacked bars: classes (rows of the table) by kind of work (columns)."""
    colours = {**PHASE_COLOURS, "lost": "#D55E00"}
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": {"waiting": "waiting at the server", "lost": "lost work"}.get(kind, kind),
            "y": [label(name) for name in table.index],
            "x": numbers(table[kind]),
            "marker": {
                "color": colours[kind],
                "pattern": {"shape": "x" if kind == "lost" else "", "fgcolor": "#fff", "fillmode": "overlay"},
            },
            "hovertemplate": f"%{{x:.3g}} {unit}<extra>%{{y}}</extra>",
        }
        for kind in table.columns
    ]
    layout = {
        "barmode": "stack",
        "xaxis": axis(title),
        "yaxis": axis("", autorange="reversed", type="category"),
    }
    return replace(figure, traces=traces, layout=layout, height_px=180 + 28 * len(table))
