"""What had a run spent when it was measured? Virtual time, bytes, and joules where the fleet tells them."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from fedsim.experiment.load import Run
from fedsim.units import format_bytes, format_joules, format_seconds

JOULES = ["download_j", "train_j", "upload_j"]


@dataclass(frozen=True, slots=True)
class Axis:
    """One kind of cost.

    Args:
        name: Column of `measured`.
        title: Of a table's column.
        show: Writes an amount for people.
    """

    name: str
    title: str
    show: Callable[[float], str]


def show_energy(energy_j: float) -> str:
    """Write an energy for people; what is little for a battery in joules."""
    return f"{energy_j:.1f} J" if energy_j < 360.0 else format_joules(energy_j)


AXES = (
    Axis("time_s", "virtual time", format_seconds),
    Axis("moved", "traffic", format_bytes),
    Axis("joules", "energy", show_energy),
)


def measured(run: Run) -> pd.DataFrame:
    """Return evaluations with a loss, and what had been spent until then.

    Bytes are those of both links. Joules are those of assignments that had ended; missing where the fleet
    has no coefficients.
    """
    table = run.evaluations
    needed = {"time_s", "version", "loss", "bytes_down", "bytes_up"}
    if not needed <= set(table.columns):
        return pd.DataFrame()
    table = table.assign(
        loss=pd.to_numeric(table["loss"]),
        moved=table["bytes_down"] + table["bytes_up"],
        joules=_joules(run, table["time_s"]),
    )
    return table.dropna(subset=["loss"])


def axes_of(table: pd.DataFrame) -> list[Axis]:
    """Return the kinds of cost that are known."""
    return [axis for axis in AXES if axis.name in table and table[axis.name].notna().all()]


def bought(table: pd.DataFrame, axis: Axis, budget: float) -> pd.Series | None:
    """Return the last measurement that a budget pays for; None if it pays for none."""
    paid = table[table[axis.name] <= budget * (1.0 + 1e-9)]
    return None if paid.empty else paid.iloc[-1]


def reached(table: pd.DataFrame, target: float) -> pd.Series | None:
    """Return the first measurement at or below a loss; None if there is none."""
    found = table[table["loss"] <= target + 1e-12]
    return None if found.empty else found.iloc[0]


def _joules(run: Run, times_s: pd.Series) -> pd.Series:
    assignments = run.assignments
    if not {*JOULES, "settled_at_s"} <= set(assignments.columns):
        return pd.Series(float("nan"), index=times_s.index)
    spent = assignments[JOULES].apply(pd.to_numeric).sum(axis=1, min_count=1)
    if spent.notna().sum() == 0:
        return pd.Series(float("nan"), index=times_s.index)
    ended_s = pd.to_numeric(assignments["settled_at_s"])
    return times_s.map(lambda time_s: float(spent[ended_s <= time_s].sum()))
