"""What did quality cost, and how far can its clock be trusted? Tables and plain words for a run's page."""

from collections.abc import Callable, Sequence

import pandas as pd

from fedsim.experiment.load import Run
from fedsim.experiment.report.page import Section, list_html, table_html
from fedsim.units import format_bytes, format_seconds

SHARES = (0.25, 0.5, 0.75, 1.0)


def budget_section(run: Run) -> Section:
    """Return quality under budgets, cost to target, and the limits of fidelity."""
    body = ""
    under, cost = quality_under_budget(run), cost_to_target(run)
    if len(under):
        body += table_html(under, "Quality under a budget: the last measurement that it pays for")
    if len(cost):
        body += table_html(cost, "Cost to target: at which measurement a share of the gain was first reached")
    if not body:
        body = "<p>No losses were measured, so there is no quality to pay for.</p>"
    return Section(
        "budgets", "Quality under a budget, and how far to trust it", body + list_html(limits(run))
    )


def quality_under_budget(run: Run) -> pd.DataFrame:
    """For shares of the run's hours and bytes: the loss of the last measurement within them."""
    table = _measured(run)
    rows = []
    for name, column, show in _axes():
        for share in SHARES if len(table) else ():
            budget = share * float(table[column].iloc[-1])
            paid = table[table[column] <= budget * (1.0 + 1e-9)]
            last = paid.iloc[-1]
            rows.append(
                {"budget": f"{show(budget)} {name}", "share": share, "version": int(last["version"]),
                 "loss": float(last["loss"])}
            )  # fmt: skip
    return pd.DataFrame(rows)


def cost_to_target(run: Run) -> pd.DataFrame:
    """For shares of the gain from the base model to the best measurement: hours and bytes until then."""
    table = _measured(run)
    if len(table) < 2 or table["loss"].min() >= table["loss"].iloc[0]:
        return pd.DataFrame()
    first, best = float(table["loss"].iloc[0]), float(table["loss"].min())
    rows = []
    for share in SHARES:
        target = first - share * (first - best)
        reached = table[table["loss"] <= target + 1e-12].iloc[0]
        rows.append(
            {
                "target loss": target,
                "share of gain": share,
                "virtual time": format_seconds(float(reached["time_s"])),
                "moved": format_bytes(float(reached["moved"])),
            }
        )
    return pd.DataFrame(rows)


def limits(run: Run) -> list[str]:
    """Say in plain words what the clock of this run is worth."""
    manifest = run.manifest
    if manifest.get("runtime") == "deployed":
        return ["Times were measured in a real run on one machine's clock; repeating it gives others."]
    cost = manifest.get("scenario", {}).get("cost", {})
    told = [
        (
            "Transfers follow the bandwidth traces exactly; real ones add protocol overhead and congestion "
            "that no trace has. docs/fidelity.md says how far a real run over shaped links was off."
        ),
        "The server's own work (combining, measuring) takes no virtual time.",
    ]
    if cost.get("calibration") is None:
        told.append(
            "Training time is counted FLOP over one rate per device, not a measurement: expect it to be off "
            "by tens of per cent on a device that was not calibrated (fedsim calibrate)."
        )
    told.append(
        "Rankings of methods that differ by less than these errors may turn on real devices: "
        "fedsim sensitivity says which change of the world turns them."
    )
    return told


def _axes() -> Sequence[tuple[str, str, Callable[[float], str]]]:
    return (("of virtual time", "time_s", format_seconds), ("moved", "moved", format_bytes))


def _measured(run: Run) -> pd.DataFrame:
    """Evaluations with a loss, and the bytes moved until then."""
    table = run.evaluations
    needed = {"time_s", "version", "loss", "bytes_down", "bytes_up"}
    if not needed <= set(table.columns):
        return pd.DataFrame()
    table = table.assign(loss=pd.to_numeric(table["loss"]), moved=table["bytes_down"] + table["bytes_up"])
    return table.dropna(subset=["loss"])
