"""The allocation of methods with a frozen tail, bound to its rule: satisfies `Allocate` and `Replan`."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fedsim.method.allocate import AllocationRule, Offered, allocate, column_stream, replan
from fedsim.method.bundle import Infeasible, Standing, Streaming
from fedsim.method.events import Spectrum
from fedsim.method.messages import Budget, RankPlan
from fedsim.world.cost import Prices

SKIPS = "a plan that skips columns is no prefix of the stream; set method.options.overflow to break"
KEPT_VERSIONS = 16


@dataclass(frozen=True, slots=True)
class Decoupled:
    """Water-filling, or one of its ablations, for a cohort and for one client again.

    Args:
        rule: How ranks are bought.
        with_tail: Whether clients receive columns that they do not train.
    """

    rule: AllocationRule
    with_tail: bool = True
    _kept: dict[int, tuple[Spectrum, Prices, Offered]] = field(
        init=False, default_factory=dict, repr=False, compare=False
    )

    def _offered(self, spectrum: Spectrum, prices: Prices) -> Offered:
        """Work out once per version what does not depend on the client; a spectrum never changes."""
        kept = self._kept.get(id(spectrum))
        if kept is None or kept[0] is not spectrum or kept[1] is not prices:
            if len(self._kept) >= KEPT_VERSIONS:
                del self._kept[next(iter(self._kept))]
            kept = self._kept[id(spectrum)] = spectrum, prices, Offered.of(spectrum, prices, self.rule)
        return kept[2]

    def allocate(
        self,
        spectrum: Spectrum,
        budgets: Sequence[Budget],
        prices: Prices,
        fresh_rank: int | None,
        standings: Sequence[Standing] | None = None,
    ) -> list[RankPlan | Infeasible]:
        """Plan a cohort; a plan follows from the budget alone."""
        del standings
        plans = allocate(spectrum, budgets, prices, fresh_rank, self.rule, self._offered(spectrum, prices))
        return plans if self.with_tail else [_without_tail(plan, ()) for plan in plans]

    def replan(
        self,
        spectrum: Spectrum,
        budgets: Sequence[Budget],
        prices: Prices,
        received: Sequence[tuple[int, ...]],
        standings: Sequence[Standing] | None = None,
        fresh_rank: int | None = None,
    ) -> list[RankPlan | Infeasible]:
        """Plan clients again, keeping what has arrived."""
        del standings
        offered = self._offered(spectrum, prices)
        plans = replan(spectrum, budgets, prices, received, fresh_rank, self.rule, offered)
        if self.with_tail:
            return plans
        return [_without_tail(plan, there) for plan, there in zip(plans, received, strict=True)]

    def stream(self, spectrum: Spectrum, prices: Prices, plan: RankPlan) -> tuple[int, ...]:
        """Put the columns of a plan in the order in which they are streamed."""
        return column_stream(self._offered(spectrum, prices).order, plan)

    @property
    def streaming(self) -> Streaming:
        """How a method with this allocation streams its columns, or why it cannot."""
        return Streaming(self.stream) if self.rule.overflow == "break" else Streaming(None, SKIPS)


def _without_tail(plan: RankPlan | Infeasible, received: tuple[int, ...]) -> RankPlan | Infeasible:
    """Leave out what is not trained, except for what has arrived already."""
    if isinstance(plan, Infeasible):
        return plan
    there = received or (0,) * len(plan.total)
    return replace(plan, total=tuple(np.maximum(plan.trained, there).tolist()))
