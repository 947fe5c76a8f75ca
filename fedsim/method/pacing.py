"""When does the server aggregate? Rules on counts; no clock, no tensors."""

import math
from dataclasses import dataclass, field
from typing import Literal

from fedsim.method.staleness import StalenessRule

Verdict = Literal["wait", "aggregate", "discard"]


@dataclass(frozen=True, slots=True)
class Mixing:
    """How updates that started from different versions are combined.

    Args:
        staleness: What an update counts for that is so many versions behind.
        max_staleness: Versions after which an update cannot count any more; None for no limit.
        server_rate: Factor on every update, in (0, 1]: the share of the way that the server goes.
        subspace: Whether an old update counts less only as far as it lies outside the newest basis.
    """

    staleness: StalenessRule = field(default_factory=StalenessRule)
    max_staleness: int | None = None
    server_rate: float = 1.0
    subspace: bool = False

    def discount(self, staleness: int) -> float:
        """Return what one update counts for, on top of its share of the examples."""
        return self.server_rate * (1.0 if self.subspace else self.staleness(staleness))

    def damping(self, staleness: int) -> float:
        """Return what the part of one update outside the newest basis counts for, on top of that."""
        return self.staleness(staleness) if self.subspace else 1.0


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
        late: Semi-synchronous: nobody is told to stop, and updates that come after their round enter the next
            aggregate in this way. Where None, they are lost.
    """

    cohort: int
    over_selection: float
    min_updates: int
    deadline_s: float | None
    surplus: Literal["recall", "finish"] = "recall"
    late: Mixing | None = None

    @property
    def seats(self) -> int:
        """How many clients one round asks."""
        return math.ceil(self.cohort * self.over_selection - 1e-9)

    @property
    def mixing(self) -> Mixing | None:
        """How versions are mixed; None where every update starts from the newest."""
        return self.late

    def verdict(self, arrived: int, at_work: int, *, deadline_passed: bool, carried: int = 0) -> Verdict:
        """Decide what to do with the open round.

        Args:
            arrived: Updates of this round received in time.
            at_work: Clients of this round that may still deliver.
            deadline_passed: Whether the deadline has fired.
            carried: Updates of earlier rounds that enter this aggregate; they fill no quorum.
        """
        if arrived >= self.cohort:
            return "aggregate"
        have = arrived + carried
        if at_work and not deadline_passed:
            return "wait" if have + at_work >= self.min_updates else "discard"
        return "aggregate" if have >= self.min_updates else "discard"


@dataclass(frozen=True, slots=True)
class BufferedPacing:
    """No rounds: clients are kept busy, and whenever the buffer is full it becomes the next version.

    With a buffer of one this is plain asynchrony.

    Args:
        concurrency: Clients that work at the same time, as far as there are any.
        buffer_size: Updates that make a version.
        min_updates: Fewest that make one where training failed for some.
        deadline_s: Seconds that one assignment may take, or None.
        mixing: How versions are mixed.

    Source:
        Nguyen et al., "Federated learning with buffered asynchronous aggregation", 2022, arXiv 2106.06639.
    """

    concurrency: int
    buffer_size: int
    min_updates: int = 1
    deadline_s: float | None = None
    mixing: Mixing = field(default_factory=Mixing)


Pacing = SyncPacing | BufferedPacing
