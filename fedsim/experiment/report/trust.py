"""How far was each update trusted, and what do versions tell of one client? Only where a scenario asks."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from fedsim.experiment.load import Run
from fedsim.experiment.report.page import Section, list_html, table_html

PRIVACY_WORDS = {
    "epsilon": "epsilon of a client that is in every release",
    "most_releases_of_a_client": "most releases that one client was in",
    "epsilon_of_that_client": "epsilon of that client, if it is no secret who takes part",
    "epsilon_if_cohorts_were_secret": "epsilon if each release drew its clients secretly and independently",
    "delta": "delta",
    "clip": "clip",
    "noise_multiplier": "noise multiplier",
    "releases": "releases",
    "updates": "updates in them",
    "clipped_updates": "of which clipped",
}


def trust_sections(run: Run) -> list[Section]:
    """Return the section about faults, rules and noise; none where the scenario has none of them."""
    scenario = run.manifest.get("scenario", {})
    robust = (scenario.get("server") or {}).get("robust")
    if not (robust or scenario.get("privacy") or scenario.get("faults")):
        return []
    told = (run.summary or {}).get("privacy") or {}
    body = list_html(_words(robust, scenario.get("faults"), scenario.get("privacy")))
    if len(run.defences):
        body += table_html(_by_honesty(run), "Updates, and how far they counted (1: in full; 0: set aside)")
    if told:
        rows = [(words, told[key]) for key, words in PRIVACY_WORDS.items() if key in told]
        table = pd.DataFrame(
            {"what": [words for words, _ in rows], "value": [f"{value:.6g}" for _, value in rows]}
        )
        body += table_html(table, "What the released versions tell of one client", words=True)
    return [Section("trust", "Trust and privacy", body)]


def _words(robust: Any, faults: Any, privacy: Any) -> list[str]:
    said = []
    if faults:
        said.append(f"Faults are injected: {_listed(faults)}.")
    if robust:
        said.append(f"Rule of the server: {_listed(robust)}.")
    if privacy:
        said.append(
            "Versions are made by the Gaussian mechanism on clipped updates. Epsilon speaks of the released "
            "versions only: this record holds norms and losses of single clients. The noise follows from the "
            "seed of the run, so whoever knows the seed can take it off."
        )
    return said


def _listed(section: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in section.items() if value is not None)


def _by_honesty(run: Run) -> pd.DataFrame:
    faulty = set(run.manifest.get("faulty_clients", []))
    table = run.defences.assign(
        clients=["faulty" if one in faulty else "others" for one in run.defences["client"]]
    )
    rows = [
        {
            "clients": name,
            "updates": len(part),
            "median_norm": float(part["norm"].median()),
            "median_counted": float(part["counted"].median()),
            "set_aside": int((part["counted"] <= 0.0).sum()),
        }
        for name, part in table.groupby("clients", sort=True)
    ]
    return pd.DataFrame(rows)
