"""What does the page of one run say? A summary on one screen first, then the figures behind it."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pandas as pd

from fedsim.experiment.load import Run
from fedsim.experiment.report import tables
from fedsim.experiment.report.fleet import cost_figures, fleet_figures
from fedsim.experiment.report.learning import TITLES, learning_figures, metric_names
from fedsim.experiment.report.page import (
    Section,
    figures_html,
    list_html,
    page_html,
    table_html,
    text,
    tiles_html,
)
from fedsim.experiment.report.ranks import adapter_figures, rank_figures
from fedsim.experiment.report.sentences import reason_in_words, sentences
from fedsim.experiment.report.shards import shard_figure
from fedsim.experiment.report.trust import trust_sections
from fedsim.experiment.report.waits import wait_figure, wait_sentence
from fedsim.units import format_bytes, format_seconds

BUDGET_TITLES = {
    "device_class": "class",
    "download_mb": "download MB",
    "memory_gb": "memory GB",
    "used_download": "share of download",
    "used_memory": "share of memory",
    "used_seconds": "share of time",
    "total_rank": "received rank",
}


def run_page(run: Run) -> str:
    """Return `report.html` of one run."""
    scenario = run.manifest.get("scenario", {})
    name = scenario.get("name", run.directory.name)
    manifest, pacing = run.manifest, scenario.get("server", {}).get("pacing", "?")
    lead = " · ".join(
        (
            str(manifest.get("method", "?")),
            f"seed {manifest.get('seed', '?')}",
            f"{manifest.get('num_devices', '?')} devices",
            f"{pacing} pacing",
        )
    )
    sections = [_summary(run), _learning(run), _fleet(run), _ranks(run), _cost(run)]
    sections += [*trust_sections(run), _provenance(run)]
    return page_html(f"Run {name}", lead, banner(run), sections)


def banner(run: Run) -> str:
    """Return what nobody may overlook: a stub, or a run that has not ended."""
    parts = []
    if run.is_stub:
        parts.append(
            '<div class="stub" role="alert"><strong>STUB</strong> Nothing was trained in this run. Times, '
            "bytes, ranks and outcomes are simulated; losses and accuracies do not exist.</div>"
        )
    if run.reason is None:
        parts.append(
            '<div class="torn" role="alert">This run has not ended: it is at work, or was killed. What '
            f"follows is its record up to virtual time {text(format_seconds(run.end_s))}.</div>"
        )
    return "".join(parts)


def priced_caveat(manifest: Mapping[str, Any]) -> str:
    """Return whose hours and bytes are shown, where they are not the trained model's own."""
    if not manifest.get("scenario", {}).get("model", {}).get("stands_for"):
        return ""
    target = manifest["scenario"]["model"]["stands_for"]
    return f"Hours and bytes are those of {target}, not of the model that was trained."


# --- summary ------------------------------------------------------------------------------------------


def _summary(run: Run) -> Section:
    caveats = [str(caveat) for caveat in run.manifest.get("caveats", [])]
    if run.reason is None and not caveats:
        caveats = ["The run has not ended."]
    seen = tables.participation(run)
    body = (
        tiles_html(_tiles(run, seen))
        + (list_html(caveats, "caveats") if caveats else "")
        + list_html([*sentences(run), *wait_sentence(run)])
    )
    return Section("summary", "Summary", body)


def _tiles(run: Run, seen: pd.DataFrame) -> dict[str, tuple[str, str]]:
    down, up = int(run.assignments["bytes_down"].sum()), int(run.assignments["bytes_up"].sum())
    made = int(run.rounds["version"].max()) if len(run.rounds) else 0
    counts = Counter(tables.outcomes(run))
    devices = run.manifest.get("num_devices", "?")
    priced = priced_caveat(run.manifest)
    tiles = {_short_title(name): _change(run, name) for name in metric_names(run)[:3]}
    return tiles | {
        "Virtual time": (format_seconds(run.end_s), priced),
        "Bytes": (format_bytes(down + up), f"{format_bytes(down)} down, {format_bytes(up)} up"),
        "Versions made": (str(made), str(run.reason or "not ended")),
        "Updates aggregated": (
            f"{counts['aggregated']} of {len(run.assignments)}",
            f"{len(run.assignments) - counts['aggregated']} assignments led to nothing",
        ),
        "Devices that contributed": (
            f"{int(seen['contributed'].sum())} of {devices}" if len(seen) else f"0 of {devices}",
            f"{int(seen['reached'].sum()) if len(seen) else 0} were given work",
        ),
    }


def _short_title(name: str) -> str:
    return {"loss": "Held-out loss", "token_accuracy": "Token accuracy", "rouge_l": "ROUGE-L"}.get(
        name, TITLES.get(name, name.replace("_", " "))
    )


def _change(run: Run, name: str) -> tuple[str, str]:
    known = pd.to_numeric(run.evaluations[name]).dropna()
    if known.empty:
        return ("not measured", "nothing was trained" if run.is_stub else "")
    return (f"{known.iloc[0]:.4f} → {known.iloc[-1]:.4f}", "base model → last version measured")


# --- the other sections -------------------------------------------------------------------------------


def _learning(run: Run) -> Section:
    figures = learning_figures(run)
    table = run.evaluations.rename(columns={"time_s": "virtual_s"})
    body = figures_html(figures, priced_caveat(run.manifest)) + _folded(
        "The same figures as a table", table_html(table, "Evaluations")
    )
    return Section("learning", "Did the model get better?", body, figures)


def _fleet(run: Run) -> Section:
    figures = [*fleet_figures(run), shard_figure(run)]
    return Section("fleet", "Fleet", figures_html(figures, priced_caveat(run.manifest)), figures)


def _ranks(run: Run) -> Section:
    figures = [*rank_figures(run), *adapter_figures(run)]
    granted = tables.budgets(run) if len(run.assignments) else pd.DataFrame()
    intro = ""
    if len(granted):
        shown = _percent(granted).rename(columns=BUDGET_TITLES)
        caption = "Medians by class: what was granted, what share the final plan uses, mean rank over layers"
        intro = table_html(shown, caption)
    changes = Counter(run.replans["reason"]) if len(run.replans) else Counter()
    told = ", ".join(f"{count} by {reason}" for reason, count in changes.most_common())
    words = (
        f"Changes of plans while clients waited or downloaded: {told}." if told else "No plan was changed."
    )
    intro += f"<p>{text(words)}</p>"
    body = intro + figures_html(figures, priced_caveat(run.manifest))
    return Section("ranks", "Ranks, budgets and the adapter", body, figures)


def _percent(granted: pd.DataFrame) -> pd.DataFrame:
    """Write shares as people read them."""
    shares = [name for name in granted.columns if name.startswith("used_")]
    told = {name: [f"{100.0 * value:.0f} %" for value in granted[name]] for name in shares}
    return granted.assign(**{name: [t.replace("nan %", "-") for t in told[name]] for name in shares})


def _cost(run: Run) -> Section:
    figures = [*cost_figures(run), wait_figure(run)]
    parts = [figures_html(figures, priced_caveat(run.manifest))]
    seen = tables.participation(run)
    if len(seen):
        parts.append(table_html(seen, "Participation by class"))
    lost = tables.waste(run)
    if len(lost):
        lost = lost.assign(cause=lost["cause"].str.replace("_", " "))
        parts.append(table_html(lost, "Work that led to nothing, by cause"))
    refused = tables.declines(run)
    if len(refused):
        refused = refused.assign(reason=refused["reason"].map(reason_in_words))
        parts.append(table_html(refused, "Devices refused before any work"))
    return Section("cost", "Participation, waste and time", "".join(parts), figures)


def _provenance(run: Run) -> Section:
    manifest = run.manifest
    facts = {
        "scenario hash": manifest.get("scenario_sha256"),
        "record hash": (run.summary or {}).get("record_sha256"),
        "executor": f"{manifest.get('executor')}{' (STUB: nothing was trained)' if run.is_stub else ''}",
        "cost model": manifest.get("scenario", {}).get("cost", {}).get("model"),
        "model": f"{manifest.get('model')}, {manifest.get('num_params'):,} parameters"
        if isinstance(manifest.get("num_params"), int)
        else manifest.get("model"),
        "priced as": manifest.get("priced_as"),
        "python": manifest.get("python"),
        "CPU capability": manifest.get("cpu_capability"),
        **{f"{name} version": value for name, value in manifest.get("versions", {}).items()},
        "lines of the record": run.num_lines,
    }
    table = pd.DataFrame({"what": list(facts), "value": [str(value) for value in facts.values()]})
    body = table_html(table, "What was run, with what", words=True) + table_html(
        _traces(run), "Traces", words=True
    )
    notes = [str(note) for note in manifest.get("trace_notes", [])]
    if notes:
        body += "<h3>Notes of the trace readers</h3>" + list_html(notes)
    scenario = json.dumps(manifest.get("scenario", {}), indent=2)
    body += _folded("The scenario with every default filled in", f'<pre tabindex="0">{text(scenario)}</pre>')
    return Section("provenance", "Scenario and provenance", body)


def _traces(run: Run) -> pd.DataFrame:
    sources = run.manifest.get("trace_sources", {})
    unknown = "not stated in a sidecar file"
    rows = [
        {
            "file": path,
            "source": sources.get(path, {}).get("source") or unknown,
            "licence": sources.get(path, {}).get("licence") or unknown,
            "sha256": sha256,
        }
        for path, sha256 in run.manifest.get("traces", {}).items()
    ]
    return pd.DataFrame(rows, columns=["file", "source", "licence", "sha256"])


def _folded(summary: str, body: str) -> str:
    return f"<details><summary>{text(summary)}</summary>{body}</details>"
