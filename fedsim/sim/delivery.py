"""In which order do columns arrive? Which of them has a client when so many bytes have come?

A plan that is delivered whole is sent by ascending index, all layers in turn: first every layer's column 0,
then every column 1. A stream has the order that the server gave. What has arrived at a re-plan stays, and the
column under way counts with it; the rest follows the new plan.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fedsim.method.events import Dispatch
from fedsim.method.messages import RankPlan, Stream
from fedsim.world.cost import Prices


@dataclass(frozen=True, slots=True)
class Delivery:
    """The stream of columns to one client.

    Args:
        floor: Columns per layer that arrived, or were under way, at the last re-plan.
        total: Columns per layer in all.
        column_bytes: Bytes of one column of each layer, int64 (L,).
        merged_bytes: Bytes that come before any column, for the base to fold in; the same in every plan.
        size_bytes: Bytes of the whole stream; summed up where it is not given.
    """

    floor: tuple[int, ...]
    total: tuple[int, ...]
    column_bytes: np.ndarray
    merged_bytes: int = 0
    size_bytes: int = -1

    def __post_init__(self) -> None:
        """Sum up once: a client asks at every step."""
        if self.size_bytes < 0:
            size = self.merged_bytes + int(self.column_bytes @ np.asarray(self.total, dtype=np.int64))
            object.__setattr__(self, "size_bytes", size)

    @classmethod
    def of(
        cls, plan: RankPlan, column_bytes: np.ndarray, merged_bytes: int = 0, size_bytes: int = -1
    ) -> "Delivery":
        """Start the stream of a plan."""
        return cls((0,) * len(plan.total), plan.total, column_bytes, merged_bytes, size_bytes)

    @property
    def closes_at_s(self) -> float:
        """When it is cut: never."""
        return float("inf")

    @property
    def least_bytes(self) -> int:
        """Bytes that must come before it may be cut: all."""
        return self.size_bytes

    def whole(self, sent_bytes: int) -> None:
        """Tell nothing about columns: the plan is only of use as a whole."""
        del sent_bytes

    def received(self, sent_bytes: int) -> tuple[int, ...]:
        """Columns per layer of which at least one byte has come."""
        floor, total = np.asarray(self.floor, dtype=np.int64), np.asarray(self.total, dtype=np.int64)
        left = sent_bytes - self.merged_bytes - int(self.column_bytes @ floor)
        k = np.arange(int(total.max(initial=0)))[:, None]
        due = (floor <= k) & (k < total)  # column k of each layer, in the order in which they are sent
        size = np.where(due, self.column_bytes, 0).ravel()
        begun = due.ravel() & (np.cumsum(size) - size < left)
        return tuple((floor + begun.reshape(due.shape).sum(axis=0)).tolist())

    def replanned(self, sent_bytes: int, plan: RankPlan, stream: Stream | None = None) -> "Delivery":
        """Go on with a new plan, which keeps every received column."""
        del stream
        return Delivery(self.received(sent_bytes), plan.total, self.column_bytes, self.merged_bytes)


@dataclass(frozen=True, eq=False)
class Streamed:
    """A stream of columns that may be cut, after the first column that can be trained.

    Args:
        layers: Layer of each column in the order sent, int64 (N,).
        trained: Columns per layer that the plan trains.
        column_bytes: Bytes of one column of each layer, int64 (L,).
        closes_at_s: Virtual time at which it is cut.
    """

    layers: np.ndarray
    trained: tuple[int, ...]
    column_bytes: np.ndarray
    closes_at_s: float

    @classmethod
    def of(cls, plan: RankPlan, column_bytes: np.ndarray, stream: Stream) -> "Streamed":
        """Start the stream of a plan."""
        return cls(np.array(stream.layers, dtype=np.int64), plan.trained, column_bytes, stream.closes_at_s)

    @cached_property
    def _ends(self) -> np.ndarray:
        """Bytes up to the end of each column, int64 (N,)."""
        return np.asarray(np.cumsum(self.column_bytes[self.layers]), dtype=np.int64)

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole stream."""
        return int(self._ends[-1])

    @property
    def least_bytes(self) -> int:
        """Bytes that must come before it may be cut: up to the first column of a layer that is trained."""
        usable = np.asarray(self.trained)[self.layers] > 0
        return int(self._ends[usable.argmax()])

    def received(self, sent_bytes: int) -> tuple[int, ...]:
        """Columns per layer of which at least one byte has come."""
        starts = self._ends - self.column_bytes[self.layers]
        return self._count(int(np.searchsorted(starts, sent_bytes, side="left")))

    def whole(self, sent_bytes: int) -> tuple[int, ...]:
        """Columns per layer that have come to the last byte."""
        return self._count(int(np.searchsorted(self._ends, sent_bytes, side="right")))

    def _count(self, reach: int) -> tuple[int, ...]:
        counts = np.bincount(self.layers[:reach], minlength=len(self.column_bytes))
        return tuple(counts.tolist())

    def replanned(self, sent_bytes: int, plan: RankPlan, stream: Stream | None) -> "Streamed":
        """Go on with a new plan: what has begun stays first, the rest comes in the new order."""
        begun = int(np.searchsorted(self._ends - self.column_bytes[self.layers], sent_bytes, side="left"))
        order = np.array(() if stream is None else stream.layers, dtype=np.int64)
        have = np.array(self._count(begun))
        nth = np.empty_like(order)  # which column of its layer each mention is
        for layer in np.unique(order):
            nth[order == layer] = np.arange(int((order == layer).sum()))
        rest = order[nth >= have[order]]
        return Streamed(
            np.concatenate((self.layers[:begun], rest)), plan.trained, self.column_bytes, self.closes_at_s
        )


def delivery_of(action: Dispatch, prices: Prices) -> Delivery | Streamed:
    """Return how the columns of a dispatched plan come: as a stream, or whole."""
    offered = action.assignment.offered
    if action.stream is not None:
        return Streamed.of(offered, prices.down_bytes, action.stream)
    bill = prices.bill(offered)
    return Delivery.of(offered, prices.down_bytes, bill.merged_bytes, bill.bytes_down)
