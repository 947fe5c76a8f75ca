"""Which columns does a budget buy, when they are offered in a fixed order?

An order lists layers; the k-th mention of a layer offers its column k. Within a layer all columns cost the
same, so a column that does not fit closes its layer: what is left only falls. This module knows neither
energies nor devices, only integer costs and limits, so that sums are exact.
"""

from dataclasses import dataclass

import numpy as np

BYTES, MEMORY, TIME = 0, 1, 2
"""Rows of every cost and limit array."""


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """Columns in the order in which they are offered.

    Args:
        layer: Layer of each offer, int64 (N,).
        column: Which column of its layer it is, from 1, int64 (N,).
        rank: How many columns each layer offers, int64 (L,).
        by_name: Layers sorted by name, int64 (L,): the order of ties.
    """

    layer: np.ndarray
    column: np.ndarray
    rank: np.ndarray
    by_name: np.ndarray

    @property
    def first(self) -> np.ndarray:
        """Layers in the order of their first column."""
        return np.asarray(self.layer[self.column == 1])


@dataclass(frozen=True, slots=True, eq=False)
class Charges:
    """What the first bought column of each group costs once, in the memory row.

    Args:
        group: Group of each layer (L,).
        cost: Per group, int64 (G,).
        paid: Groups that are paid already (G,).
    """

    group: np.ndarray
    cost: np.ndarray
    paid: np.ndarray

    def due(self) -> np.ndarray:
        """What the next column of each layer would be charged (L,)."""
        return np.asarray(np.where(self.paid, 0, self.cost)[self.group])

    def with_paid(self, layers: np.ndarray) -> "Charges":
        """Return the charges after these layers have bought a column."""
        paid = self.paid.copy()
        paid[self.group[layers]] = True
        return Charges(self.group, self.cost, paid)

    def along(self, sequence: np.ndarray) -> np.ndarray:
        """Charge of each offer if all of them are bought in turn."""
        groups = self.group[sequence]
        first = np.full(len(self.cost), -1, dtype=np.int64)
        first[groups[::-1]] = np.arange(len(sequence) - 1, -1, -1)
        charged = np.zeros(len(sequence), dtype=np.int64)
        due = np.flatnonzero((first >= 0) & ~self.paid)
        charged[first[due]] = self.cost[due]
        return charged


@dataclass(frozen=True, slots=True, eq=False)
class Bought:
    """The result of a walk.

    Args:
        count: Columns bought per layer (L,).
        left: What is left of each limit (3,).
        charges: Groups paid by now.
    """

    count: np.ndarray
    left: np.ndarray
    charges: Charges


def walk(sequence: np.ndarray, cost: np.ndarray, left: np.ndarray, charges: Charges, *, skip: bool) -> Bought:
    """Buy along an order, several constraints at once.

    Whole stretches are bought by prefix sums. At the first offer that does not fit, every layer that cannot
    afford its next column is closed; there are few distinct prices, so this happens a few times at most.

    Args:
        sequence: Layers in the order offered.
        cost: Per column, one row for each constraint, int64 (3, L).
        left: What may still be spent, int64 (3,).
        charges: Once per group; pass `free_of_charge` where there are none.
        skip: Go on past a column that does not fit, or stop there.

    Returns:
        What was bought.
    """
    count = np.zeros(cost.shape[1], dtype=np.int64)
    while sequence.size:
        price = cost[:, sequence]
        price[MEMORY] += charges.along(sequence)
        spent = np.cumsum(price, axis=1)
        over = np.asarray((spent > left[:, None]).any(axis=0))
        stop = int(over.argmax()) if over[-1] else len(sequence)
        if stop:
            count += np.bincount(sequence[:stop], minlength=len(count))
            left = left - spent[:, stop - 1]
            charges = charges.with_paid(sequence[:stop])
        if not skip or stop == len(sequence):
            break
        next_price = cost.copy()
        next_price[MEMORY] += charges.due()
        is_open = np.asarray((next_price <= left[:, None]).all(axis=0))
        rest = sequence[stop:]
        sequence = rest[is_open[rest]]
    return Bought(count, left, charges)


def free_of_charge(group: np.ndarray, num_groups: int) -> Charges:
    """Return charges that cost nothing."""
    return Charges(group, np.zeros(num_groups, dtype=np.int64), np.ones(num_groups, dtype=bool))


def prefix_ranks(order: Order, cost: np.ndarray, limits: np.ndarray, *, skip: bool) -> np.ndarray:
    """Buy along one order under one constraint for many budgets at once.

    The prefix that a budget reaches is a row of the table of column counts, and all rows come from one binary
    search and one cumulative sum. Past the first misfit, each price class is a pointer into the order.

    Args:
        order: Offers, the same for all budgets.
        cost: Per column and layer, positive int64 (L,).
        limits: Budgets, int64 (n,).
        skip: As in `walk`.

    Returns:
        Columns bought, int64 (n, L); equal to a `walk` for each budget.
    """
    spent = np.concatenate([[0], np.cumsum(cost[order.layer])])
    reach = np.searchsorted(spent[1:], limits, side="right")
    ranks = _count_rows(order, reach, len(cost))
    if skip and len(order.layer):
        _buy_past_misfit(order, cost, limits - spent[reach], reach, ranks)
    return ranks


def _count_rows(order: Order, reach: np.ndarray, num_layers: int) -> np.ndarray:
    """Count the columns of each layer among the first `reach` offers, for each entry of `reach`."""
    rows = len(reach)
    ascending = np.argsort(reach, kind="stable")
    place = np.empty(rows, dtype=np.int64)
    place[ascending] = np.arange(rows)
    joins_at = np.searchsorted(reach[ascending], np.arange(len(order.layer)), side="right")
    # Layer by layer, so that the sums run along contiguous memory.
    cells = np.bincount(order.layer * (rows + 1) + joins_at, minlength=(rows + 1) * num_layers)
    counts = np.cumsum(cells.reshape(num_layers, rows + 1), axis=1)
    return np.asarray(counts[:, place].T)


def _buy_past_misfit(
    order: Order, cost: np.ndarray, left: np.ndarray, cursor: np.ndarray, ranks: np.ndarray
) -> None:
    """Add to `ranks` what each budget still buys after its first misfit, the earliest fitting offer first."""
    end = len(order.layer)
    classes, class_of = np.unique(cost, return_inverse=True)
    following = next_of_class(class_of[order.layer], len(classes))
    client = np.arange(len(left))
    while client.size:
        candidate = np.where(classes[:, None] <= left[None, :], following[:, cursor], end).min(axis=0)
        buys = candidate < end
        client, candidate = client[buys], candidate[buys]
        layer = order.layer[candidate]
        ranks[client, layer] += 1
        left, cursor = left[buys] - cost[layer], candidate + 1


def next_of_class(class_of_offer: np.ndarray, num_classes: int) -> np.ndarray:
    """Return for each class and position the first offer of the class from there on (N if none)."""
    end = len(class_of_offer)
    following = np.full((num_classes, end + 1), end, dtype=np.int64)
    following[class_of_offer, np.arange(end)] = np.arange(end)
    return np.minimum.accumulate(following[:, ::-1], axis=1)[:, ::-1]
