"""What does a client get where only bytes bind? Plans of one version, each made when it is first asked for.

Under buffered pacing clients are planned one at a time, so what depends on the version alone (the order of
the columns, sums along it, the next column of each price) is worked out once and kept. A look-up then costs a
binary search; the plans are those of `fedsim.method.walk.prefix_ranks`.
"""

import math
from bisect import bisect_right

import numpy as np

from fedsim.method.ledger import byte_limit
from fedsim.method.messages import Budget, RankPlan
from fedsim.method.walk import Order, next_of_class
from fedsim.world.cost import Prices

_MARGIN = 1.0 + 1e-5
"""Looser than the sums of `affords_all` can differ, so that whoever passes here passes there."""
_KEPT = 4096


class PlanTable:
    """Plans by the bytes that they may cost.

    Args:
        order: Columns of the version, in the order offered; at least one.
        prices: Price list.
        reserve: Share of memory and time that received columns leave free.
        skip: Go on past a column that does not fit, or stop there.
    """

    def __init__(self, order: Order, prices: Prices, reserve: float, *, skip: bool) -> None:
        cost = prices.down_bytes
        self._prices = prices
        self._skip = skip
        self._left = 1.0 - reserve
        self._spent = np.concatenate(([0], np.cumsum(cost[order.layer]))).tolist()
        self._layer = order.layer.tolist()
        self._num_layers = len(cost)
        classes, class_of = np.unique(cost, return_inverse=True)
        self._classes = classes.tolist()
        self._following = next_of_class(class_of[order.layer], len(classes)).tolist()
        self._most = _Most(prices, order.rank)
        self._plans: dict[int, RankPlan | None] = {}
        self._unit = math.gcd(*self._classes)

    def plan(self, budget: Budget) -> RankPlan | None:
        """Return the plan of a client that affords more memory and time than any plan of the version costs.

        None for others, and where not even one column fits.
        """
        if not self._most.fits(budget, self._left):
            return None
        key = min(byte_limit(budget), self._spent[-1]) // self._unit
        if key not in self._plans:
            if len(self._plans) >= _KEPT:
                self._plans.clear()
            self._plans[key] = self._buy(key * self._unit)
        return self._plans[key]

    def _buy(self, limit: int) -> RankPlan | None:
        reach = bisect_right(self._spent, limit) - 1
        if reach <= 0:
            return None
        count = np.bincount(self._layer[:reach], minlength=self._num_layers).tolist()
        if self._skip:
            for layer in self._past_misfit(reach, limit - self._spent[reach]):
                count[layer] += 1
        ranks = tuple(count)
        return RankPlan(ranks, ranks)

    def _past_misfit(self, place: int, left: int) -> list[int]:
        """Buy on past the first column that does not fit: each time the earliest that does."""
        end = len(self._layer)
        bought: list[int] = []
        while True:
            fitting = [
                following[place]
                for cost, following in zip(self._classes, self._following, strict=True)
                if cost <= left
            ]
            place = min(fitting, default=end)
            if place == end:
                return bought
            layer = self._layer[place]
            left -= int(self._prices.down_bytes[layer])
            bought.append(layer)
            place += 1


class _Most:
    """What the largest plan of a version costs besides bytes of the download.

    Args:
        prices: Price list.
        rank: Columns of each layer.
    """

    def __init__(self, prices: Prices, rank: np.ndarray) -> None:
        held = 0 if prices.held_up_bytes is None else int(rank @ prices.held_up_bytes)
        self.base_memory = prices.base_memory
        tail, train = float(rank @ prices.tail_memory), float(rank @ prices.train_memory)
        seed = float(prices.train_memory.max() + prices.group_memory.max(initial=0.0))
        # Prices count in half bytes, rounded up, one at a time.
        slack = 2.0 * float(rank.sum()) + len(prices.group_memory) + 4.0
        self.seeded_memory = (tail + seed + slack) * _MARGIN
        self.whole_memory = (
            prices.base_memory + tail + train + float(prices.group_memory.sum()) + slack
        ) * _MARGIN
        self.base_flops = prices.base_flops
        self.tail_flops = float(rank @ prices.tail_flops)
        self.train_flops = float(rank @ prices.train_flops)
        self.seed_flops = float(prices.train_flops.max())
        self.down_bits = 8.0 * float(rank @ prices.down_bytes)
        self.up_bits = 8.0 * float(rank @ prices.up_bytes)
        self.held_bits = 8.0 * held
        self.seed_bits = 8.0 * float(prices.up_bytes.max())

    def fits(self, budget: Budget, left: float) -> bool:
        """Say whether memory and time surely suffice; see `fedsim.method.ledger.affords_all`."""
        free = budget.memory_bytes - self.base_memory - 1.0
        if self.seeded_memory > free * left or self.whole_memory > budget.memory_bytes:
            return False
        flops, up_bps = budget.flops, budget.upload_bps
        if not (flops > 0.0 and up_bps > 0.0 and budget.download_bps > 0.0):
            return False
        base_s = self.base_flops / flops
        tail_s = self.tail_flops / flops + self.down_bits / budget.download_bps + self.held_bits / up_bps
        seed_s = self.seed_flops / flops + self.seed_bits / up_bps
        train_s = self.train_flops / flops + self.up_bits / up_bps
        return (tail_s + seed_s) * _MARGIN <= (budget.seconds - base_s) * left and (
            base_s + tail_s + train_s
        ) * _MARGIN <= budget.seconds
