"""How do lines of the record become tables? One pass, one row per thing that the lines speak of."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from fedsim.method.estimate import NO_DEADLINE_S, UNLIMITED
from fedsim.method.messages import RankPlan
from fedsim.world.cost import Prices

Line = dict[str, Any]
Row = dict[str, Any]

BITS = 8.0
BUDGET = ("download_bytes", "memory_bytes", "seconds", "download_bps", "upload_bps", "flops")
ASSIGNMENT: dict[str, Any] = {
    "assignment": 0,
    "client": 0,
    "device": "",
    "device_class": "",
    "version": 0,
    "steps": 0,
    "gate": None,
    "learning_rate": None,
    "offered_plan": None,
    "plan": None,
    "num_replans": 0,
    "dispatched_at_s": None,
    "deadline_at_s": None,
    "downloaded_at_s": None,
    "trained_at_s": None,
    "uploaded_at_s": None,
    "settled_at_s": None,
    "download_s": None,
    "train_s": None,
    "upload_s": None,
    "num_pauses": 0,
    "outcome": None,
    "phase": None,
    "reason": None,
    "bytes_down": 0,
    "bytes_up": 0,
    "download_j": None,
    "train_j": None,
    "upload_j": None,
    "weight": None,
    "staleness": None,
    "loss": None,
    "alignment": None,
    "pruned": None,
    **{f"budget_{name}": None for name in BUDGET},
}
COLUMNS: dict[str, tuple[str, ...]] = {
    "evaluations": ("time_s", "version", "loss", "token_accuracy"),
    "rounds": ("time_s", "version", "num_updates", "failed", "round", "result"),
    "plans": ("plan", "total", "trained", "merged", "mean_total", "mean_trained"),
    "replans": ("time_s", "assignment", "reason", "old_plan", "new_plan"),
    "declines": ("time_s", "client", "device", "device_class", "reason"),
    "fleet": ("time_s", "online", "busy"),
    "presence": ("time_s", "client", "device", "event"),
    "pauses": ("time_s", "assignment", "phase", "resumes_at_s"),
    "layer_spectra": ("time_s", "version", "layer", "rank", "energy"),
    "measures": ("time_s", "version"),
    "spectra": ("time_s", "version", "layer", "singular_values"),
    "defences": ("time_s", "version", "assignment", "client", "norm", "counted"),
}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Frames:
    """The tables of one record.

    Args:
        evaluations: One row per measured version, base model first.
        assignments: One row per dispatched assignment: who, when, what it was granted and used, how it ended.
        rounds: One row per closed round or made version.
        plans: One row per plan; `total` and `trained` hold ranks per layer.
        replans: One row per change of a plan.
        declines: One row per refusal of a device.
        fleet: One row per look at the fleet: how many devices were online and busy.
        presence: One row per arrival or departure of a device that takes part.
        pauses: One row per pause.
        layer_spectra: One row per version and layer: rank and energy of the global adapter.
        measures: One row per version that was measured beyond loss and accuracy.
        spectra: Singular values per measured version and layer, where they were measured.
        defences: One row per update that a rule weighed or clipped: its norm, and how far it counted.
        end_s: Virtual time of the last line.
        reason: Why the run stopped; None where it has not.
        num_lines: Lines of the record.
    """

    evaluations: pd.DataFrame
    assignments: pd.DataFrame
    rounds: pd.DataFrame
    plans: pd.DataFrame
    replans: pd.DataFrame
    declines: pd.DataFrame
    fleet: pd.DataFrame
    presence: pd.DataFrame
    pauses: pd.DataFrame
    layer_spectra: pd.DataFrame
    measures: pd.DataFrame
    spectra: pd.DataFrame
    defences: pd.DataFrame
    end_s: float
    reason: str | None
    num_lines: int


def tabulate(lines: Iterable[Line], prices: Prices | None = None) -> Frames:
    """Turn a record into tables.

    Args:
        lines: Of the record, in order.
        prices: What a column costs; without them memory and seconds of a plan stay unknown.
    """
    gathering = _Gathering()
    for line in lines:
        gathering.read(line)
    plans = gathering.table("plans")
    assignments = pd.DataFrame(list(gathering.assignments.values()), columns=list(ASSIGNMENT))
    tables = {name: gathering.table(name) for name in COLUMNS if name != "plans"}
    return Frames(
        plans=plans,
        assignments=_with_plans(assignments, gathering.plans, prices),
        **tables,
        end_s=gathering.end_s,
        reason=gathering.reason,
        num_lines=gathering.num_lines,
    )


@dataclass(slots=True)
class _Gathering:
    """Rows so far; every method takes one kind of line."""

    rows: dict[str, list[Row]] = field(default_factory=lambda: {name: [] for name in COLUMNS})
    assignments: dict[int, Row] = field(default_factory=dict)
    plans: dict[int, RankPlan] = field(default_factory=dict)
    aggregating: Line = field(default_factory=dict)
    end_s: float = 0.0
    reason: str | None = None
    num_lines: int = 0

    def read(self, line: Line) -> None:
        """Take in one line; kinds that no table speaks of are passed over."""
        self.num_lines += 1
        self.end_s = float(line["time_s"])
        rule = getattr(self, f"_on_{line['event']}", None)
        if rule is not None:
            taken: Callable[[Line], None] = rule
            taken(line)

    def table(self, name: str) -> pd.DataFrame:
        """Return one table; its columns are there without rows, too."""
        rows = self.rows[name]
        return pd.DataFrame(rows) if rows else pd.DataFrame(columns=list(COLUMNS[name]))

    def _append(self, name: str, line: Line, *without: str) -> None:
        self.rows[name].append({key: value for key, value in line.items() if key not in ("event", *without)})

    # --- the fleet --------------------------------------------------------------------------------------

    def _on_fleet(self, line: Line) -> None:
        self._append("fleet", line)

    def _on_arrived(self, line: Line) -> None:
        self.rows["presence"].append(line)

    def _on_departed(self, line: Line) -> None:
        self.rows["presence"].append(line)

    def _on_declined(self, line: Line) -> None:
        self._append("declines", line)

    # --- plans ------------------------------------------------------------------------------------------

    def _on_plan(self, line: Line) -> None:
        plan = RankPlan(tuple(line["total"]), tuple(line["trained"]), tuple(line.get("merged", ())))
        self.plans[line["plan"]] = plan
        self.rows["plans"].append(
            {
                "plan": line["plan"],
                "total": list(plan.total),
                "trained": list(plan.trained),
                "merged": list(plan.merged),
                "mean_total": float(np.mean(plan.total)),
                "mean_trained": float(np.mean(plan.trained)),
            }
        )

    def _on_replanned(self, line: Line) -> None:
        self._append("replans", line, "budget", "ahead", "received")
        row = self.assignments[line["assignment"]]
        row["plan"] = line["new_plan"]
        row["num_replans"] += 1
        row |= {f"budget_{name}": line["budget"].get(name) for name in BUDGET}

    # --- one assignment ---------------------------------------------------------------------------------

    def _on_dispatched(self, line: Line) -> None:
        told = {key: value for key, value in line.items() if key in ASSIGNMENT}
        budget = {f"budget_{name}": line["budget"].get(name) for name in BUDGET}
        self.assignments[line["assignment"]] = {
            **ASSIGNMENT,
            **told,
            **budget,
            "offered_plan": line["plan"],
            "dispatched_at_s": line["time_s"],
        }

    def _ended(self, line: Line, phase: str, instant: str) -> None:
        row = self.assignments[line["assignment"]]
        row[f"{phase}_s"], row[f"{instant}_at_s"] = line["duration_s"], line["time_s"]

    def _on_downloaded(self, line: Line) -> None:
        self._ended(line, "download", "downloaded")

    def _on_training_started(self, line: Line) -> None:
        self.assignments[line["assignment"]]["plan"] = line["plan"]

    def _on_trained(self, line: Line) -> None:
        self._ended(line, "train", "trained")

    def _on_uploaded(self, line: Line) -> None:
        self._ended(line, "upload", "uploaded")

    def _on_paused(self, line: Line) -> None:
        self._append("pauses", line)
        self.assignments[line["assignment"]]["num_pauses"] += 1

    def _on_settled(self, line: Line) -> None:
        row = self.assignments[line["assignment"]]
        told = ("outcome", "phase", "reason", "plan", "bytes_down", "bytes_up")
        row |= {key: line[key] for key in told if key in line}
        row |= {f"{phase}_j": joules for phase, joules in line.get("energy_j", {}).items()}
        row["settled_at_s"] = line["time_s"]

    # --- versions ---------------------------------------------------------------------------------------

    def _on_aggregating(self, line: Line) -> None:
        self.aggregating = line
        for number, weight in zip(line["assignments"], line["weights"], strict=True):
            row = self.assignments[number]
            row["weight"], row["staleness"] = weight, line["version"] - row["version"]

    def _on_aggregated(self, line: Line) -> None:
        asked = self.aggregating.get("assignments", [])
        failed = line.get("failed", {})
        self.rows["rounds"].append(
            {
                "time_s": line["time_s"],
                "version": line["version"],
                "num_updates": len(asked) - len(failed),
                "failed": len(failed),
                "round": None,
                "result": "aggregated"
                if line["version"] > self.aggregating.get("version", -1)
                else "skipped",
            }
        )
        for column, values in (("loss", "losses"), ("alignment", "alignments"), ("pruned", "pruned")):
            for number, value in line.get(values, {}).items():
                self.assignments[int(number)][column] = value
        for layer, rank in line.get("ranks", {}).items():
            self.rows["layer_spectra"].append(
                {
                    "time_s": line["time_s"],
                    "version": line["version"],
                    "layer": layer,
                    "rank": rank,
                    "energy": line["energy"][layer],
                }
            )

        self._defended(line, line.get("defence", {}))

    def _defended(self, line: Line, defence: Line) -> None:
        for number, norm in defence.get("norms", {}).items():
            self.rows["defences"].append(
                {
                    "time_s": line["time_s"],
                    "version": line["version"],
                    "assignment": int(number),
                    "client": self.assignments[int(number)]["client"],
                    "norm": norm,
                    "counted": defence["counted"][number],
                }
            )

    def _on_measured(self, line: Line) -> None:
        at = {"time_s": line["time_s"], "version": line["version"]}
        self.rows["measures"].append({**at, **line.get("means", {})})
        self.rows["spectra"] += [
            {**at, "layer": layer, "singular_values": list(values)}
            for layer, values in line.get("spectrum", {}).items()
        ]

    def _on_round_closed(self, line: Line) -> None:
        rounds = self.rows["rounds"]
        if rounds and rounds[-1]["round"] is None and rounds[-1]["time_s"] == line["time_s"]:
            rounds[-1] |= {"round": line["round"], "result": line["result"]}
            return
        rounds.append(
            {
                "time_s": line["time_s"],
                "version": line["version"],
                "num_updates": 0,
                "failed": 0,
                "round": line["round"],
                "result": line["result"],
            }
        )

    def _on_evaluated(self, line: Line) -> None:
        self._append("evaluations", line)

    def _on_stopped(self, line: Line) -> None:
        self.reason = str(line["reason"])


def _with_plans(table: pd.DataFrame, plans: dict[int, RankPlan], prices: Prices | None) -> pd.DataFrame:
    """Add ranks of the final plan, and what it uses of the budgets at the rates they were made with."""
    used = {number: _used(plan, prices) for number, plan in plans.items()}
    for name in (
        "mean_total",
        "mean_trained",
        "planned_bytes_down",
        "planned_bytes_up",
        "memory_bytes",
        "flop",
    ):
        table[name] = [used[number][name] if number in used else None for number in table["plan"]]
    for name in (*(f"budget_{name}" for name in BUDGET), "planned_bytes_down", "memory_bytes", "flop"):
        table[name] = pd.to_numeric(table[name])
    seconds = (
        BITS * table["planned_bytes_down"] / table["budget_download_bps"]
        + BITS * pd.to_numeric(table["planned_bytes_up"]) / table["budget_upload_bps"]
        + table["flop"] / table["budget_flops"]
    )
    granted_s = table["budget_seconds"].where(table["budget_seconds"] < NO_DEADLINE_S)
    table["planned_s"] = seconds
    granted_bytes = table["budget_download_bytes"].where(table["budget_download_bytes"] < UNLIMITED)
    table["used_download"] = table["planned_bytes_down"] / granted_bytes.where(granted_bytes > 0)
    table["used_memory"] = table["memory_bytes"] / table["budget_memory_bytes"]
    table["used_seconds"] = seconds / granted_s
    return table


def _used(plan: RankPlan, prices: Prices | None) -> Row:
    ranks = {"mean_total": float(np.mean(plan.total)), "mean_trained": float(np.mean(plan.trained))}
    if prices is None:
        return {
            **ranks,
            "planned_bytes_down": None,
            "planned_bytes_up": None,
            "memory_bytes": None,
            "flop": None,
        }
    return {
        **ranks,
        "planned_bytes_down": prices.bytes_down(plan),
        "planned_bytes_up": prices.bytes_up(plan),
        "memory_bytes": prices.memory_bytes(plan.total, plan.trained),
        "flop": prices.flops(plan.total, plan.trained),
    }
