"""What did quality cost, and how far can its clock be trusted? Tables and plain words for a run's page."""

import pandas as pd

from fedsim.experiment.load import Run
from fedsim.experiment.report.page import Section, list_html, table_html
from fedsim.experiment.report.spent import axes_of, bought, measured, reached

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
    """For shares of what the run spent: the loss of the last measurement within them."""
    table = measured(run)
    rows = []
    for axis in axes_of(table) if len(table) else ():
        for share in SHARES:
            budget = share * float(table[axis.name].iloc[-1])
            last = bought(table, axis, budget)
            if last is not None:
                shown = f"{axis.show(budget)} of {axis.title}"
                found = {"version": int(last["version"]), "loss": float(last["loss"])}
                rows.append({"budget": shown, "share": share, **found})
    return pd.DataFrame(rows)


def cost_to_target(run: Run) -> pd.DataFrame:
    """For shares of the gain from the base model to the best measurement: what was spent until then."""
    table = measured(run)
    if len(table) < 2 or table["loss"].min() >= table["loss"].iloc[0]:
        return pd.DataFrame()
    first, best = float(table["loss"].iloc[0]), float(table["loss"].min())
    rows = []
    for share in SHARES:
        target = first - share * (first - best)
        then = reached(table, target)
        if then is not None:
            spent = {axis.title: axis.show(float(then[axis.name])) for axis in axes_of(table)}
            rows.append({"target loss": target, "share of gain": share, **spent})
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
    if stands_for := manifest.get("scenario", {}).get("model", {}).get("stands_for"):
        told.append(
            f"Hours, bytes and joules are those of {stands_for}, losses those of the model that was trained."
        )
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
