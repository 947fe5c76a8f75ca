"""In which order do columns arrive? Which of them has a client when so many bytes have come?

Columns are sent by ascending index, all layers in turn: first every layer's column 0, then every column 1.
What has arrived at a re-plan stays, and the column under way counts with it; the rest follows the new plan.
"""

from dataclasses import dataclass, field

import numpy as np

from fedsim.method.messages import RankPlan


@dataclass(frozen=True, slots=True)
class Delivery:
    """The stream of columns to one client.

    Args:
        floor: Columns per layer that arrived, or were under way, at the last re-plan.
        total: Columns per layer in all.
        column_bytes: Bytes of one column of each layer, int64 (L,).
        merged_bytes: Bytes that come before any column, for the base to fold in; the same in every plan.
    """

    floor: tuple[int, ...]
    total: tuple[int, ...]
    column_bytes: np.ndarray
    merged_bytes: int = 0
    size_bytes: int = field(init=False)
    """Bytes of the whole stream."""

    def __post_init__(self) -> None:
        """Sum up once: a client asks at every step."""
        size = self.merged_bytes + int(self.column_bytes @ np.asarray(self.total, dtype=np.int64))
        object.__setattr__(self, "size_bytes", size)

    @classmethod
    def of(cls, plan: RankPlan, column_bytes: np.ndarray, merged_bytes: int = 0) -> "Delivery":
        """Start the stream of a plan."""
        return cls((0,) * len(plan.total), plan.total, column_bytes, merged_bytes)

    def received(self, sent_bytes: int) -> tuple[int, ...]:
        """Columns per layer of which at least one byte has come."""
        floor, total = np.asarray(self.floor, dtype=np.int64), np.asarray(self.total, dtype=np.int64)
        left = sent_bytes - self.merged_bytes - int(self.column_bytes @ floor)
        k = np.arange(int(total.max(initial=0)))[:, None]
        due = (floor <= k) & (k < total)  # column k of each layer, in the order in which they are sent
        size = np.where(due, self.column_bytes, 0).ravel()
        begun = due.ravel() & (np.cumsum(size) - size < left)
        return tuple((floor + begun.reshape(due.shape).sum(axis=0)).tolist())

    def replanned(self, sent_bytes: int, plan: RankPlan) -> "Delivery":
        """Go on with a new plan, which keeps every received column."""
        return Delivery(self.received(sent_bytes), plan.total, self.column_bytes, self.merged_bytes)
