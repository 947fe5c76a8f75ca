"""How much rank does a client get that trains all it receives? The largest common rank of its layers.

Every method without a frozen tail uses this: one rank for all layers of a client, as large as bytes, memory
and seconds allow together. Sums are exact integers, as in `fedsim.method.allocate`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from fedsim.method.bundle import Infeasible, Standing
from fedsim.method.events import Spectrum
from fedsim.method.ledger import Ledger, open_ledger
from fedsim.method.messages import Budget, RankPlan
from fedsim.world.cost import Prices

Merged = Callable[[Spectrum, Prices, Standing], tuple[int, ...]]
"""Columns per layer that a client receives for its base, besides those that it trains."""

UNKNOWN = Standing(None, ())

KEPT_VERDICTS = 8192
"""How many answers of an allocation rule are kept."""


def nothing_merged(spectrum: Spectrum, prices: Prices, standing: Standing) -> tuple[int, ...]:
    """Send nothing for the base."""
    del spectrum, prices, standing
    return ()


def what_was_missed(spectrum: Spectrum, prices: Prices, standing: Standing) -> tuple[int, ...]:
    """Send what brings the base of a client up to the newest version, in the cheapest of three forms.

    The stacks that it missed; the whole global term, compressed to its rank; or that term as a dense matrix,
    priced in columns. A client of which nothing is known holds the bare base.
    """
    whole = np.array([len(spectrum.get(name, ())) for name in prices.layers], dtype=np.int64)
    if prices.dense_columns is not None:
        whole = np.minimum(whole, prices.dense_columns)
    if standing.memory is not None:
        missed = standing.missed or (0,) * len(whole)
        whole = np.minimum(whole, np.asarray(missed, dtype=np.int64))
    return tuple(whole.tolist()) if whole.any() else ()


@dataclass(frozen=True, slots=True)
class CommonRank:
    """The allocation rule of methods that train every received column.

    Args:
        cap: Largest rank of a client.
        least: Smallest; a client that cannot carry it is declined. Equal to `cap` where all have one rank.
        merged: What is received for the base on top.
        sent: Columns per layer that are received in all, the rest of them for the base; None: only what is
            trained.
    """

    cap: int
    least: int = 1
    merged: Merged = nothing_merged
    sent: int | None = None

    def allocate(
        self,
        spectrum: Spectrum,
        budgets: Sequence[Budget],
        prices: Prices,
        fresh_rank: int | None,
        standings: Sequence[Standing] | None = None,
    ) -> list[RankPlan | Infeasible]:
        """Plan a cohort; satisfies `fedsim.method.bundle.Allocate`. There is no floor of fresh columns."""
        del fresh_rank
        known = standings if standings is not None else [UNKNOWN] * len(budgets)
        return [
            _kept_plan(
                self, budget, prices, self.merged(spectrum, prices, standing), _capped(self.cap, standing)
            )
            for budget, standing in zip(budgets, known, strict=True)
        ]

    def replan(
        self,
        spectrum: Spectrum,
        budgets: Sequence[Budget],
        prices: Prices,
        received: Sequence[tuple[int, ...]],
        standings: Sequence[Standing] | None = None,
        fresh_rank: int | None = None,
    ) -> list[RankPlan | Infeasible]:
        """Plan clients again; received columns that they can no longer train stay unused.

        Satisfies `fedsim.method.bundle.Replan`.
        """
        del spectrum, fresh_rank
        known = standings if standings is not None else [UNKNOWN] * len(budgets)
        return [
            self._replan(budget, prices, np.asarray(there, dtype=np.int64), standing)
            for budget, there, standing in zip(budgets, received, known, strict=True)
        ]

    def _replan(
        self, budget: Budget, prices: Prices, there: np.ndarray, standing: Standing
    ) -> RankPlan | Infeasible:
        ledger = open_ledger(budget, prices).keeping(there)
        if ledger.is_short_of_memory:
            return Infeasible("memory")
        if ledger.is_short_of_time:
            return Infeasible("time")
        return self.plan(ledger, there, (), _capped(self.cap, standing), None)

    def plan(
        self,
        ledger: Ledger | Infeasible,
        there: np.ndarray,
        merged: tuple[int, ...],
        cap: int,
        sent: int | None,
    ) -> RankPlan | Infeasible:
        """Buy the largest common rank up to a cap, beside what is there and what comes for the base."""
        if isinstance(ledger, Infeasible):
            return ledger
        rank = ledger.common_rank(there, cap, sent)
        if rank < max(self.least, 1):
            return Infeasible("no column")
        total = tuple(np.maximum(there, rank).tolist())
        if sent is not None:
            merged = tuple(sent - held for held in total)
        return RankPlan(total, (rank,) * len(total), merged)


@lru_cache(maxsize=KEPT_VERDICTS)
def _kept_plan(
    rule: CommonRank, budget: Budget, prices: Prices, merged: tuple[int, ...], cap: int
) -> RankPlan | Infeasible:
    """Plan one client; kept, since whoever cannot take part is asked again whenever somebody arrives."""
    nothing = np.zeros(len(prices.layers), dtype=np.int64)
    return rule.plan(open_budget(budget, prices, merged), nothing, merged, cap, rule.sent)


def largest_rank(budget: Budget, prices: Prices, cap: int) -> int:
    """Return the largest common rank up to `cap` that one budget allows; 0 if none."""
    ledger = open_budget(budget, prices, ())
    if isinstance(ledger, Infeasible):
        return 0
    return ledger.common_rank(np.zeros(len(prices.layers), dtype=np.int64), cap)


def fleet_rank(budgets: Sequence[Budget], prices: Prices, cap: int) -> int:
    """Return the smallest of the devices' largest ranks; devices that can carry no column do not count.

    Args:
        budgets: One for each device of the fleet.
        prices: Price list.
        cap: Largest rank.

    Returns:
        At least 1; 1 where no device can carry a column, so that each of them is declined by itself.
    """
    ranks = [largest_rank(budget, prices, cap) for budget in dict.fromkeys(budgets)]
    return min((rank for rank in ranks if rank), default=1)


def open_budget(budget: Budget, prices: Prices, merged: Sequence[int]) -> Ledger | Infeasible:
    """Open the ledger of a client that also receives columns for its base."""
    ledger = open_ledger(budget, prices)
    if (ledger.limit < 0).any():
        return Infeasible("base")
    extra = prices.merged_bytes(merged)
    if not extra:
        return ledger
    left = replace(
        budget,
        download_bytes=budget.download_bytes - extra,
        seconds=budget.seconds - 8.0 * extra / budget.download_bps,
    )
    ledger = open_ledger(left, prices)
    return Infeasible("no column") if (ledger.limit < 0).any() else ledger


def _capped(cap: int, standing: Standing) -> int:
    """Return the cap of a client, lower where it was pruned."""
    rank = None if standing.memory is None else standing.memory.rank
    return cap if rank is None else min(cap, rank)
