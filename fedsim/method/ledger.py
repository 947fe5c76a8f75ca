"""What does one client pay, in integers? Prices and a budget, turned into exact costs and limits.

Bytes are whole, memory counts in half bytes, time in a power of two near 2^-40 of the seconds granted. Costs
are rounded up and limits down, so that a plan that fits here also fits the budget itself, whatever the order
of summation.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedsim.method.messages import Budget
from fedsim.method.walk import MEMORY, TIME, Charges, free_of_charge
from fedsim.world.cost import Prices

_TIME_BITS = 41
_NEVER = 2.0 ** (_TIME_BITS + 1)
_PLENTY = 2**60
_MARGIN = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Ledger:
    """Costs per column, one row each for bytes, memory and time, and what may be spent.

    Args:
        limit: What the frozen base leaves of each budget, int64 (3,); negative where it leaves nothing.
        receive: Per column that is still to be received, int64 (3, L).
        hold: Per column that is there already, int64 (3, L).
        train: Per trained column on top, int64 (3, L).
        charges: Once per input group that trains.
    """

    limit: np.ndarray
    receive: np.ndarray
    hold: np.ndarray
    train: np.ndarray
    charges: Charges

    @property
    def free(self) -> Charges:
        """No charges, for columns that are received and not trained."""
        return free_of_charge(self.charges.group, len(self.charges.cost))

    @property
    def is_short_of_memory(self) -> bool:
        """Whether memory is exceeded before anything is bought."""
        return bool(self.limit[MEMORY] < 0)

    @property
    def is_short_of_time(self) -> bool:
        """Whether time is exceeded before anything is bought."""
        return bool(self.limit[TIME] < 0)

    def keeping(self, received: np.ndarray) -> "Ledger":
        """Return the ledger after paying for columns that are there already."""
        limit = self.limit - (self.hold * received).sum(axis=1)
        return Ledger(limit, self.receive, self.hold, self.train, self.charges)

    def common_rank(self, there: np.ndarray, most: int, sent: int | None = None) -> int:
        """Return the largest rank that all layers can train at once; 0 if none.

        Args:
            there: Columns per layer that are paid for already, int64 (L,).
            most: Largest rank on offer.
            sent: Columns that arrive whatever the rank; those beyond it cost their way over the link only.
        """
        link = self.receive - self.hold
        once = self.charges.cost[np.unique(self.charges.group)].sum()

        def is_too_much(rank: int) -> bool:
            price = (self.receive * np.maximum(0, rank - there) + self.train * rank).sum(axis=1)
            price[MEMORY] += once
            if sent is not None:
                price += (link * (sent - rank)).sum(axis=1)
            return bool((price > self.limit).any())

        return bisect_left(range(1, most + 1), True, key=is_too_much)


def open_ledger(budget: Budget, prices: Prices) -> Ledger:
    """Turn a price list and a budget into integers.

    The deadline is one linear constraint over both links and all local steps; latencies are already off the
    seconds. An infinite budget never binds.
    """
    zero = np.zeros(len(prices.layers), dtype=np.int64)
    with np.errstate(divide="ignore", invalid="ignore"):
        hold_s = prices.tail_flops / np.float64(budget.flops)
        if prices.held_up_bytes is not None:
            hold_s = hold_s + prices.held_up_bytes * 8.0 / np.float64(budget.upload_bps)
        receive_s = hold_s + prices.down_bytes * 8.0 / np.float64(budget.download_bps)
        train_s = prices.train_flops / np.float64(budget.flops) + prices.up_bytes * 8.0 / np.float64(
            budget.upload_bps
        )
        base_s = np.float64(prices.base_flops) / np.float64(budget.flops)
    tail_memory = _half_bytes(prices.tail_memory)
    limit = np.array(
        [
            byte_limit(budget),
            _limit(2.0 * budget.memory_bytes) - int(_half_bytes(np.array(prices.base_memory))),
            _time_limit(budget.seconds) - int(_time_units(np.asarray(base_s), budget.seconds)),
        ],
        dtype=np.int64,
    )
    groups = Charges(
        prices.group, _half_bytes(prices.group_memory), np.zeros(len(prices.group_memory), dtype=bool)
    )
    return Ledger(
        limit=limit,
        receive=np.stack([prices.down_bytes, tail_memory, _time_units(receive_s, budget.seconds)]),
        hold=np.stack([zero, tail_memory, _time_units(hold_s, budget.seconds)]),
        train=np.stack([zero, _half_bytes(prices.train_memory), _time_units(train_s, budget.seconds)]),
        charges=groups,
    )


def byte_limit(budget: Budget) -> int:
    """Whole bytes that the download may carry."""
    return _limit(budget.download_bytes)


def affords_all(budgets: Sequence[Budget], prices: Prices, ranks: np.ndarray, reserve: float) -> np.ndarray:
    """Tell under which budgets memory and time certainly do not bind, even if every received column trains.

    A screen, not a decision: it errs towards False by a margin, and what it lets through needs no exact sums.

    Args:
        budgets: One per row.
        prices: Price list.
        ranks: Columns received per budget and layer, int64 (n, L).
        reserve: Share of memory and time that received columns must leave free.

    Returns:
        Boolean (n,).
    """
    ranks = np.ascontiguousarray(ranks, dtype=np.float64)
    table = np.array([(b.memory_bytes, b.seconds, b.download_bps, b.upload_bps, b.flops) for b in budgets])
    memory, seconds, down_bps, up_bps, flops = table.reshape(-1, 5).T
    with np.errstate(divide="ignore", invalid="ignore"):
        base_s = prices.base_flops / flops
        tail_s = ranks @ prices.tail_flops / flops + ranks @ prices.down_bytes * 8.0 / down_bps
        if prices.held_up_bytes is not None:
            tail_s = tail_s + ranks @ prices.held_up_bytes * 8.0 / up_bps
        train_s = ranks @ prices.train_flops / flops + ranks @ prices.up_bytes * 8.0 / up_bps
        seed_s = prices.train_flops.max() / flops + prices.up_bytes.max() * 8.0 / up_bps
        in_time = (_above(tail_s + seed_s) <= (seconds - base_s) * (1.0 - reserve)) & (
            _above(base_s + tail_s + train_s) <= seconds
        )
        return np.asarray(in_time & _affords_memory(memory, prices, ranks, reserve))


def _affords_memory(memory: np.ndarray, prices: Prices, ranks: np.ndarray, reserve: float) -> np.ndarray:
    """The memory half of `affords_all`, at prices rounded up as in the ledger."""
    rows = (prices.tail_memory, prices.train_memory, prices.group_memory)
    tail, train, group = (_half_bytes(row) / 2.0 for row in rows)
    base = float(_half_bytes(np.array(prices.base_memory))) / 2.0
    received = ranks @ tail
    seeded = _above(received + train.max() + group.max()) <= (memory - base) * (1.0 - reserve)
    whole = _above(base + received + ranks @ train + group.sum()) <= memory
    return np.asarray(seeded & whole)


def _above(value: np.ndarray) -> np.ndarray:
    """Add the margin of the screen; a cost of nothing stays nothing."""
    return value * (1.0 + _MARGIN)


def _limit(value: float) -> int:
    """Round a limit down; infinity becomes plenty."""
    return _PLENTY if value >= _PLENTY else math.floor(value)


def _half_bytes(value: np.ndarray) -> np.ndarray:
    """Round memory up to half bytes."""
    return np.ceil(2.0 * value).astype(np.int64)


def _time_limit(seconds: float) -> int:
    """Units of time in the whole window; none where it is infinite, because then nothing costs any."""
    if math.isinf(seconds):
        return 0
    return int(math.ldexp(math.frexp(seconds)[0], _TIME_BITS)) if seconds > 0.0 else -1


def _time_units(cost_s: np.ndarray, seconds: float) -> np.ndarray:
    """Round durations up to units of the window; what can never end costs more than the window."""
    if math.isinf(seconds) or seconds <= 0.0:
        return np.zeros(cost_s.shape, dtype=np.int64)
    # The unit is a power of two, so that whole and half seconds stay exact.
    with np.errstate(over="ignore"):
        units = np.ldexp(cost_s, _TIME_BITS - math.frexp(seconds)[1])
    finite = np.nan_to_num(units, nan=_NEVER, posinf=_NEVER)
    return np.asarray(np.ceil(np.clip(finite, 0.0, _NEVER)), dtype=np.int64)
