"""How much of its budgets does an assignment use? Bytes, memory and seconds, as planned at dispatch.

The base model and its activations count: they are what a device must carry before the first column. Whoever
wants the truth of a link or a deadline reads outcomes; this says how well plans fill what the server granted.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedsim.method.estimate import NO_DEADLINE_S, UNLIMITED
from fedsim.method.messages import RankPlan
from fedsim.world.cost import Prices

NEARLY_ALL = 0.95
BITS = 8.0


@dataclass(slots=True)
class Utilisation:
    """Sums over the dispatched assignments of a run. Satisfies `fedsim.sim.instrument.Instrument`.

    Args:
        prices: Of one assignment.
    """

    prices: Prices
    _plans: dict[int, RankPlan] = field(default_factory=dict)
    _shares: dict[str, list[float]] = field(
        default_factory=lambda: {"download_bytes": [], "memory_bytes": [], "seconds": []}
    )
    _used: list[tuple[float, float, float]] = field(default_factory=list)

    def observe(self, time_s: float, event: str, fields: Mapping[str, Any]) -> None:
        """Take note of plans, and of assignments that are sent."""
        del time_s
        if event == "plan":
            merged = tuple(fields.get("merged", ()))
            plan = RankPlan(tuple(fields["total"]), tuple(fields["trained"]), merged)
            self._plans[fields["plan"]] = plan
        elif event == "dispatched":
            self._dispatched(self._plans[fields["plan"]], fields["budget"])

    def _dispatched(self, plan: RankPlan, budget: Mapping[str, float]) -> None:
        used = used_budget(self.prices, plan, budget)
        self._used.append((used["download_bytes"], used["memory_bytes"], used["seconds"]))
        for name, values in self._shares.items():
            granted = budget[name]
            unbounded = {"seconds": NO_DEADLINE_S, "download_bytes": UNLIMITED}.get(name, math.inf)
            if 0.0 < granted < unbounded:
                values.append(used[name] / granted)

    def summary(self) -> dict[str, object]:
        """Return what `summary.json` says; a budget that no assignment had is None."""
        count = len(self._used)
        means = [sum(row[index] for row in self._used) / count if count else None for index in range(3)]
        return {
            "assignments": count,
            "mean_download_bytes": means[0],
            "mean_memory_bytes": means[1],
            "mean_seconds": means[2],
            **{name: _share(values) for name, values in self._shares.items()},
        }


def used_budget(
    prices: Prices, plan: RankPlan, budget: Mapping[str, float], received: tuple[int, ...] | None = None
) -> dict[str, float]:
    """Return what a plan uses of each budget, at the rates that the budget was made with.

    Args:
        prices: Of one assignment.
        plan: Received and trained ranks.
        budget: Fields of `fedsim.method.messages.Budget`.
        received: Columns per layer that were there when a plan was made again, with all that is sent for the
            base: they cost no more bytes or seconds. None: nothing was there.
    """
    down, up = prices.bytes_down(plan), prices.bytes_up(plan)
    if received is not None:
        down = prices.download_bytes(plan.total) - prices.download_bytes(received)
    transfers_s = BITS * down / budget["download_bps"] + BITS * up / budget["upload_bps"]
    return {
        "download_bytes": float(down),
        "memory_bytes": prices.memory_bytes(plan.total, plan.trained),
        "seconds": transfers_s + prices.flops(plan.total, plan.trained) / budget["flops"],
    }


def _share(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {
        "mean": sum(values) / len(values),
        "over_95_percent": sum(value > NEARLY_ALL for value in values) / len(values),
    }
