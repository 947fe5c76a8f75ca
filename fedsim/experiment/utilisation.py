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


_UNBOUNDED = {"download_bytes": UNLIMITED, "memory_bytes": math.inf, "seconds": NO_DEADLINE_S}
"""Budget -> what it is where there is none."""


@dataclass(slots=True)
class _Shares:
    """What assignments used of one budget, as shares of what they were granted.

    Args:
        unbounded: Budgets from here on are none.
    """

    unbounded: float
    count: int = 0
    total: float = 0.0
    nearly_all: int = 0

    def add(self, used: float, granted: float) -> None:
        """Take an assignment into account; one without a budget says nothing."""
        if 0.0 < granted < self.unbounded:
            self.count += 1
            self.total += used / granted
            self.nearly_all += used / granted > NEARLY_ALL

    def summary(self) -> dict[str, float] | None:
        """Return their mean, and how many used nearly all; None where none had the budget."""
        if not self.count:
            return None
        return {"mean": self.total / self.count, "over_95_percent": self.nearly_all / self.count}


@dataclass(slots=True)
class Utilisation:
    """Sums over the dispatched assignments of a run. Satisfies `fedsim.sim.instrument.Instrument`.

    Args:
        prices: Of one assignment.
    """

    prices: Prices
    _plans: dict[int, RankPlan] = field(default_factory=dict)
    _count: int = 0
    _used: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_UNBOUNDED, 0.0))
    _shares: dict[str, "_Shares"] = field(
        default_factory=lambda: {name: _Shares(unbounded) for name, unbounded in _UNBOUNDED.items()}
    )

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
        self._count += 1
        for name, used in used_budget(self.prices, plan, budget).items():
            self._used[name] += used
            self._shares[name].add(used, budget[name])

    def summary(self) -> dict[str, object]:
        """Return what `summary.json` says; a budget that no assignment had is None."""
        count = self._count
        return {
            "assignments": count,
            **{f"mean_{name}": used / count if count else None for name, used in self._used.items()},
            **{name: shares.summary() for name, shares in self._shares.items()},
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
    bill = prices.bill(plan)
    down, up = bill.bytes_down, bill.bytes_up
    if received is not None:
        down = prices.download_bytes(plan.total) - prices.download_bytes(received)
    transfers_s = BITS * down / budget["download_bps"] + BITS * up / budget["upload_bps"]
    return {
        "download_bytes": float(down),
        "memory_bytes": bill.memory_bytes,
        "seconds": transfers_s + bill.flops / budget["flops"],
    }
