"""When does the server aggregate? Rules on counts; no clock, no tensors."""

import math
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["wait", "aggregate", "discard"]


@dataclass(frozen=True, slots=True)
class SyncPacing:
    """Rounds: a cohort is asked, and the round closes on its quorum, its deadline or its last client.

    Args:
        cohort: Updates that close a round (the quorum).
        over_selection: More clients than the quorum are asked by this factor, against stragglers.
        min_updates: Fewest updates that make a version; a round below it leaves the model unchanged.
        deadline_s: Seconds from the start of the round to its deadline, or None.
        surplus: What happens to clients still at work when the quorum is full: they are told to stop, or
            they finish and arrive late.
    """

    cohort: int
    over_selection: float
    min_updates: int
    deadline_s: float | None
    surplus: Literal["recall", "finish"] = "recall"

    @property
    def seats(self) -> int:
        """How many clients one round asks."""
        return math.ceil(self.cohort * self.over_selection - 1e-9)

    def verdict(self, arrived: int, at_work: int, *, deadline_passed: bool) -> Verdict:
        """Decide what to do with the open round.

        Args:
            arrived: Updates received in time.
            at_work: Clients that may still deliver.
            deadline_passed: Whether the deadline has fired.
        """
        if arrived >= self.cohort:
            return "aggregate"
        if at_work and not deadline_passed:
            return "wait" if arrived + at_work >= self.min_updates else "discard"
        return "aggregate" if arrived >= self.min_updates else "discard"
