"""What must the allocator equal? The rules in words, one column at a time, slow on purpose.

For tests and benchmarks; nothing else calls it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fedsim.method.ledger import Ledger
from fedsim.method.walk import Order


def naive_greedy(
    energies: Sequence[Sequence[float]], cost: Sequence[int], limit: int, *, skip: bool, names: Sequence[str]
) -> tuple[int, ...]:
    """Take, again and again, the next column with the largest energy per cost.

    Args:
        energies: Per layer, descending.
        cost: Per column and layer.
        limit: What may be spent.
        skip: Go on with what fits, or stop at the first best column that does not.
        names: Of the layers; ties go to the smaller name.

    Returns:
        Columns per layer.

    Source:
        FedHera, ICML 2026, water-filling of r_tot, as in the published code (`skip`) and draft (`break`).
    """
    ranks, left, closed = [0] * len(cost), limit, set[int]()
    by_name = sorted(range(len(cost)), key=names.__getitem__)
    while True:
        best, best_density = -1, -1.0
        for layer in by_name:
            if layer in closed or ranks[layer] >= len(energies[layer]):
                continue
            density = energies[layer][ranks[layer]] / cost[layer]
            if density > best_density:
                best, best_density = layer, density
        if best < 0:
            return tuple(ranks)
        if cost[best] > left:
            if not skip:
                return tuple(ranks)
            closed.add(best)
            continue
        left -= cost[best]
        ranks[best] += 1


@dataclass(slots=True)
class NaivePlan:
    """A plan in the making: what is left, what is received, what is trained."""

    ledger: Ledger
    left: list[int]
    total: list[int]
    trained: list[int]
    groups: set[int] = field(default_factory=set)

    def price(self, layer: int, *, receive: bool, train: bool) -> list[int]:
        """Cost of one more column of a layer."""
        ledger = self.ledger
        price = [0, 0, 0]
        for row in range(3):
            price[row] += int(ledger.receive[row, layer]) if receive else 0
            price[row] += int(ledger.train[row, layer]) if train else 0
        if train and int(ledger.charges.group[layer]) not in self.groups:
            price[1] += int(ledger.charges.cost[ledger.charges.group[layer]])
        return price

    def buy(self, layer: int, *, receive: bool, train: bool, limit: Sequence[int]) -> bool:
        """Buy one column if `limit` allows; `limit` is what may be left, at least, of each budget."""
        price = self.price(layer, receive=receive, train=train)
        left = [have - cost for have, cost in zip(self.left, price, strict=True)]
        if any(have < least for have, least in zip(left, limit, strict=True)):
            return False
        self.left = left
        self.total[layer] += receive
        self.trained[layer] += train
        if train:
            self.groups.add(int(self.ledger.charges.group[layer]))
        return True


def naive_plan(
    order: Order, ledger: Ledger, floor: int, reserve: float, *, skip: bool
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Plan one client under three budgets: seed, receive, train, fresh columns, each a plain loop.

    Args:
        order: Offers.
        ledger: Prices and limits; the base is paid.
        floor: Rank that fresh columns fill up to.
        reserve: Share of memory and time kept for training while columns are received.
        skip: As in `naive_greedy`.

    Returns:
        Received and trained ranks, or None where no column fits.
    """
    count = len(order.rank)
    plan = NaivePlan(ledger, [int(value) for value in ledger.limit], [0] * count, [0] * count)
    offers = list(zip(order.layer.tolist(), order.column.tolist(), strict=True))
    seeds = (layer for layer, column in offers if column == 1)
    if any(plan.buy(layer, receive=True, train=True, limit=(0, 0, 0)) for layer in seeds):
        left = np.array(plan.left[1:], dtype=np.float64)
        kept = [0, *(plan.left[1:] - np.floor(left * (1.0 - reserve)).astype(np.int64)).tolist()]
        _naive_pass(plan, offers, skip=skip, train=False, limit=kept)
        _naive_pass(plan, offers, skip=skip, train=True, limit=(0, 0, 0))
    _naive_fresh(plan, order, floor, skip=skip)
    return (tuple(plan.total), tuple(plan.trained)) if any(plan.trained) else None


def _naive_pass(
    plan: NaivePlan, offers: Sequence[tuple[int, int]], *, skip: bool, train: bool, limit: Sequence[int]
) -> None:
    """Walk the order once, receiving or training each column whose predecessor was taken."""
    for layer, column in offers:
        have = plan.trained[layer] if train else plan.total[layer]
        if column <= have or (train and column > plan.total[layer]):
            continue
        taken = have == column - 1 and plan.buy(layer, receive=not train, train=train, limit=limit)
        if not taken and not skip:
            return


def _naive_fresh(plan: NaivePlan, order: Order, floor: int, *, skip: bool) -> None:
    """Level by level, buy columns without energy where all energy is trained."""
    if not order.rank.any():
        floor = max(1, naive_common(plan.ledger, floor)) if floor else 0
    eligible = [layer for layer in order.by_name.tolist() if plan.trained[layer] >= order.rank[layer]]
    for level in range(1, floor + 1):
        for layer in eligible:
            if level <= plan.trained[layer]:
                continue
            taken = plan.trained[layer] == level - 1 and plan.buy(
                layer, receive=True, train=True, limit=(0, 0, 0)
            )
            if not taken and not skip:
                return


def naive_common(ledger: Ledger, most: int) -> int:
    """Give every layer one more trained column for as long as all of them fit."""
    count = len(ledger.charges.group)
    trial = NaivePlan(ledger, [int(value) for value in ledger.limit], [0] * count, [0] * count)
    for rank in range(most):
        if not all(trial.buy(layer, receive=True, train=True, limit=(0, 0, 0)) for layer in range(count)):
            return rank
    return most
