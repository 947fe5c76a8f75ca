"""How much rank does each client get? An order of columns, bought under bytes, memory and seconds.

Water-filling offers columns by energy per byte; `uniform` offers them level by level and `random` in a
shuffled order, under the same budgets. The answer is the same for equal budgets and does not depend on the
order of layers. This module knows prices and singular values; it knows no tensors, no clock and no client.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fedsim.method.bundle import Infeasible
from fedsim.method.events import Spectrum
from fedsim.method.ledger import Ledger, affords_all, byte_limit, open_ledger
from fedsim.method.messages import Budget, RankPlan
from fedsim.method.plan_table import PlanTable
from fedsim.method.walk import BYTES, MEMORY, Charges, Order, prefix_ranks, walk
from fedsim.seeds import Seeds
from fedsim.world.cost import Prices

Energy = Literal["raw", "layer_normalized"]
Overflow = Literal["skip", "break"]
Allocation = Literal["water_filling", "uniform", "random"]

RANK_TOLERANCE = 1e-6
"""A column is offered where its singular value exceeds this share of the first of its layer."""


@dataclass(frozen=True, slots=True)
class AllocationRule:
    """How ranks are bought.

    Args:
        allocation: Order of the offers.
        energy: Worth of a column: squared singular value, raw or as a share of its layer.
        overflow: Past a column that does not fit, `skip` it or `break` off.
        train_reserve: Share of memory and time that received columns leave for training (eta), in [0, 1].
        rank_cap: Most columns of a layer.
        initial_rank: Floor that fresh columns fill up to; at version 0, cap of the common rank. None: the
            largest rank that all layers of the client can train at once, as clients without a tail get.
        coupled: Train every received column, as methods without a frozen tail do.
        seed: Of the random order.
    """

    allocation: Allocation = "water_filling"
    energy: Energy = "raw"
    overflow: Overflow = "skip"
    train_reserve: float = 0.25
    rank_cap: int = 64
    initial_rank: int | None = None
    coupled: bool = False
    seed: int = 0


def column_energies(spectrum: Spectrum, prices: Prices, rule: AllocationRule) -> list[np.ndarray]:
    """Return the energies of the columns on offer, per layer of the price list, descending.

    Columns below the numerical rank of their layer carry noise and are not offered.
    """
    energies = []
    for name in prices.layers:
        sigma = np.asarray(spectrum.get(name, ()), dtype=np.float64)
        squared = sigma**2
        kept = squared[sigma > RANK_TOLERANCE * sigma[0]] if sigma.size and sigma[0] > 0.0 else squared[:0]
        total = float(squared.sum()) if rule.energy == "layer_normalized" else 1.0
        energies.append(kept[: rule.rank_cap] / total if kept.size else kept)
    return energies


def offer(spectrum: Spectrum, prices: Prices, rule: AllocationRule) -> Order:
    """Put the columns of a version in the order in which every client of it is offered them."""
    energies = column_energies(spectrum, prices, rule)
    rank = np.array([len(energy) for energy in energies], dtype=np.int64)
    by_name = np.array(sorted(range(len(prices.layers)), key=prices.layers.__getitem__), dtype=np.int64)
    place = np.empty_like(by_name)
    place[by_name] = np.arange(len(by_name))
    layer = np.repeat(np.arange(len(rank)), rank)
    column = np.arange(len(layer)) - np.repeat(np.cumsum(rank) - rank, rank) + 1
    if rule.allocation == "water_filling":
        density = np.concatenate([*energies, np.empty(0)]) / prices.down_bytes[layer]
        index = np.lexsort((column, place[layer], -density))
    elif rule.allocation == "uniform":
        index = np.lexsort((place[layer], column))
    else:
        return _shuffled(spectrum, rule.seed, rank, by_name)
    return Order(layer[index], column[index], rank, by_name)


def _shuffled(spectrum: Spectrum, seed: int, rank: np.ndarray, by_name: np.ndarray) -> Order:
    """Offer the columns in an order that is random, and the same for all clients of a version."""
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(spectrum):
        digest.update(name.encode() + np.asarray(spectrum[name], dtype="<f8").tobytes())
    generator = Seeds(seed).generator("allocation", digest.hexdigest())
    layer = generator.permutation(np.repeat(by_name, rank[by_name]))
    column = np.empty_like(layer)
    grouped = np.argsort(layer, kind="stable")
    column[grouped] = np.arange(len(layer)) - np.repeat(np.cumsum(rank) - rank, rank) + 1
    return Order(layer, column, rank, by_name)


@dataclass(frozen=True, slots=True, eq=False)
class Offered:
    """What of an allocation depends on the version alone.

    Args:
        order: Columns in the order in which every client is offered them.
        lowest: Smallest numerical rank of a layer.
        table: Plans of clients under whose budgets only bytes bind; None where nothing is on offer.
    """

    order: Order
    lowest: int
    table: PlanTable | None

    @classmethod
    def of(cls, spectrum: Spectrum, prices: Prices, rule: AllocationRule) -> "Offered":
        """Put the columns of a version in order."""
        order = offer(spectrum, prices, rule)
        reserve = 0.0 if rule.coupled else rule.train_reserve
        skip = rule.overflow == "skip"
        table = PlanTable(order, prices, reserve, skip=skip) if len(order.layer) else None
        return cls(order, int(order.rank.min(initial=rule.rank_cap)), table)


def allocate(
    spectrum: Spectrum,
    budgets: Sequence[Budget],
    prices: Prices,
    fresh_rank: int | None,
    rule: AllocationRule,
    offered: Offered | None = None,
) -> list[RankPlan | Infeasible]:
    """Plan a cohort.

    For each budget: one column is seeded, so that training is possible at all; then columns are received
    while bytes last and `train_reserve` of memory and time stays free; then the same order is trained as
    far as memory and time reach. What is left buys fresh columns, in layers where everything is trained, up
    to `fresh_rank`. Where no budget but bytes binds, the cohort is planned in one vectorised step.

    Args:
        spectrum: Singular values of the version, per layer.
        budgets: One for each client.
        prices: The same for all clients.
        fresh_rank: Floor that fresh columns fill up to; None takes the rule's.
        rule: How ranks are bought.
        offered: Of this version, these prices and this rule; made here where None.

    Returns:
        A plan or the reason for none, in the order of the budgets.

    Source:
        FedHera, ICML 2026, water-filling of r_tot and r_train; three budgets and the seed are fedsim's own.
    """
    offered = Offered.of(spectrum, prices, rule) if offered is None else offered
    floor = _floor(fresh_rank, rule)
    if len(budgets) == 1 and offered.table is not None and offered.lowest >= floor:
        plan = offered.table.plan(budgets[0])
        if plan is not None:
            return [plan]
    order = offered.order
    distinct = list(dict.fromkeys(budgets))
    plans = _unconstrained(order, distinct, prices, floor, rule)
    nothing = np.zeros(len(prices.layers), dtype=np.int64)
    for budget in distinct:
        if budget not in plans:
            ledger = open_ledger(budget, prices)
            short = (ledger.limit < 0).any()
            plans[budget] = Infeasible("base") if short else plan_client(order, ledger, nothing, floor, rule)
    return [plans[budget] for budget in budgets]


def replan(
    spectrum: Spectrum,
    budgets: Sequence[Budget],
    prices: Prices,
    received: Sequence[tuple[int, ...]],
    fresh_rank: int | None,
    rule: AllocationRule,
    offered: Offered | None = None,
) -> list[RankPlan | Infeasible]:
    """Plan clients of one version again, keeping the columns that they have received already.

    All clients share one order of columns; where nothing but bytes binds, they are planned in one step.

    Args:
        spectrum: Of the version they were dispatched with.
        budgets: Bytes and seconds from now on, and all the memory, one for each client.
        prices: Price list.
        received: Columns per layer that have arrived; they cost memory and FLOP, but no bytes.
        fresh_rank: Floor that fresh columns fill up to; None takes the rule's.
        rule: How ranks are bought.
        offered: As in `allocate`.

    Returns:
        Plans, or why nothing can be trained: `memory` or `time` where what is there exceeds it already.
    """
    order = offer(spectrum, prices, rule) if offered is None else offered.order
    floor = _floor(fresh_rank, rule)
    there = np.array(received, dtype=np.int64).reshape(len(budgets), len(prices.layers))
    plans = _unconstrained_again(order, budgets, prices, there, floor, rule)
    return [
        plan or _replan_client(order, open_ledger(budget, prices).keeping(row), row, floor, rule)
        for plan, budget, row in zip(plans, budgets, there, strict=True)
    ]


def _replan_client(
    order: Order, ledger: Ledger, there: np.ndarray, floor: int, rule: AllocationRule
) -> RankPlan | Infeasible:
    if ledger.is_short_of_memory:
        return Infeasible("memory")
    if ledger.is_short_of_time:
        return Infeasible("time")
    return plan_client(order, ledger, there, floor, rule)


def _floor(fresh_rank: int | None, rule: AllocationRule) -> int:
    """Return the most columns that fresh ones may fill a layer up to."""
    wanted = rule.initial_rank if fresh_rank is None else fresh_rank
    return rule.rank_cap if wanted is None else min(wanted, rule.rank_cap)


def column_stream(order: Order, plan: RankPlan) -> tuple[int, ...]:
    """Put the columns of a plan in the order in which they are bought, so that each prefix is a plan itself.

    Only where buying breaks off at a misfit is a plan a prefix of the order.

    Args:
        order: Columns with energy as every client of the version is offered them.
        plan: The columns to be sent.

    Returns:
        The layer of each column; the k-th mention of a layer is its column k. Columns with energy come by
        energy per byte, fresh ones after them by ascending rank.
    """
    total = np.asarray(plan.total, dtype=np.int64)
    level = np.repeat(np.arange(1, int(total.max(initial=0)) + 1), len(order.by_name))
    layer = np.tile(order.by_name, int(total.max(initial=0)))
    fresh = layer[(level > order.rank[layer]) & (level <= total[layer])]
    known = order.layer[order.column <= total[order.layer]]
    return tuple(np.concatenate((known, fresh)).tolist())


def plan_client(
    order: Order, ledger: Ledger, received: np.ndarray, floor: int, rule: AllocationRule
) -> RankPlan | Infeasible:
    """Buy for one client: seed, received columns, trained columns, fresh columns."""
    if rule.initial_rank is None or not order.rank.any():
        common = ledger.common_rank(received, floor)
        floor = max(1, common) if floor else 0
    skip = rule.overflow == "skip"
    stage = _Stage(ledger.limit, ledger.charges, received.copy(), np.zeros_like(received))
    if rule.coupled:
        stage = _train(order.layer, order.column, order.rank, ledger, stage, skip=skip)
    else:
        stage = _decoupled(order, ledger, stage, rule)
    stage = _fresh(order, ledger, stage, floor, skip=skip)
    if not stage.trained.any():
        return Infeasible("no column")
    return RankPlan(tuple(stage.total.tolist()), tuple(stage.trained.tolist()))


@dataclass(frozen=True, slots=True, eq=False)
class _Stage:
    """A half-made plan: what is left, which groups are paid, columns received and trained so far."""

    left: np.ndarray
    charges: Charges
    total: np.ndarray
    trained: np.ndarray


def _decoupled(order: Order, ledger: Ledger, stage: _Stage, rule: AllocationRule) -> _Stage:
    """Seed one column, receive along the order, then train along the order."""
    skip = rule.overflow == "skip"
    stage = _seed(order, ledger, stage)
    if not stage.trained.any():
        return stage
    keep = np.floor(stage.left * (1.0 - rule.train_reserve)).astype(np.int64)
    keep[BYTES] = stage.left[BYTES]
    offers = order.layer[order.column > stage.total[order.layer]]
    got = walk(offers, ledger.receive, np.minimum(keep, stage.left), ledger.free, skip=skip)
    left = stage.left - (ledger.receive * got.count).sum(axis=1)
    total = stage.total + got.count
    offers = order.layer[(order.column <= total[order.layer]) & (order.column > stage.trained[order.layer])]
    bought = walk(offers, ledger.train, left, stage.charges, skip=skip)
    return _Stage(bought.left, bought.charges, total, stage.trained + bought.count)


def _seed(order: Order, ledger: Ledger, stage: _Stage) -> _Stage:
    """Buy the first column of the order that fits as received and as trained."""
    first = order.first
    price = ledger.train + np.where(stage.total > 0, 0, ledger.receive)
    price[MEMORY] += stage.charges.due()
    fits = (price[:, first] <= stage.left[:, None]).all(axis=0)
    if not fits.any():
        return stage
    layer = first[fits.argmax()]
    one = np.zeros_like(stage.total)
    one[layer] = 1
    charges = stage.charges.with_paid(np.array([layer]))
    return _Stage(stage.left - price[:, layer], charges, np.maximum(stage.total, one), one)


def _train(
    layers: np.ndarray, columns: np.ndarray, known: np.ndarray, ledger: Ledger, stage: _Stage, *, skip: bool
) -> _Stage:
    """Train along an order: first columns that are there already, then others, received to be trained.

    A layer goes on to new columns only when the `known` ones that are there are trained.

    Args:
        layers: Layers in the order offered.
        columns: Which column each offer is.
        known: Columns of each layer that the order knows of.
        ledger: Prices.
        stage: What has been bought so far.
        skip: As in `walk`.
    """
    there = (columns <= stage.total[layers]) & (columns > stage.trained[layers])
    bought = walk(layers[there], ledger.train, stage.left, stage.charges, skip=skip)
    trained = stage.trained + bought.count
    whole = trained >= np.minimum(stage.total, known)
    more = (columns > stage.total[layers]) & whole[layers]
    extra = walk(layers[more], ledger.receive + ledger.train, bought.left, bought.charges, skip=skip)
    return _Stage(extra.left, extra.charges, stage.total + extra.count, trained + extra.count)


def _fresh(order: Order, ledger: Ledger, stage: _Stage, floor: int, *, skip: bool) -> _Stage:
    """Buy columns without energy, lowest rank first, in layers that train all their energy.

    At version 0 the floor is a rank that all layers can share, so that every layer gets the same; where not
    even one column of each fits, some layers get one.
    """
    level = np.repeat(np.arange(1, floor + 1), len(order.by_name))
    layer = np.tile(order.by_name, floor)
    offered = (stage.trained[layer] >= order.rank[layer]) & (level > stage.trained[layer])
    known = np.full_like(order.rank, floor)
    return _train(layer[offered], level[offered], known, ledger, stage, skip=skip)


def _unconstrained(
    order: Order, budgets: Sequence[Budget], prices: Prices, floor: int, rule: AllocationRule
) -> dict[Budget, RankPlan | Infeasible]:
    """Plan, in one vectorised step, the budgets under which only bytes bind."""
    if not len(order.layer) or order.rank.min() < floor:
        return {}
    limits = np.array([byte_limit(budget) for budget in budgets], dtype=np.int64)
    ranks = prefix_ranks(order, prices.down_bytes, limits, skip=rule.overflow == "skip")
    reserve = 0.0 if rule.coupled else rule.train_reserve
    free = affords_all(budgets, prices, ranks, reserve) & (ranks.sum(axis=1) > 0)
    rows = ranks.tolist()
    chosen: dict[Budget, RankPlan | Infeasible] = {}
    for index in np.flatnonzero(free).tolist():
        row = tuple(rows[index])
        chosen[budgets[index]] = RankPlan(row, row)
    return chosen


def _unconstrained_again(
    order: Order,
    budgets: Sequence[Budget],
    prices: Prices,
    there: np.ndarray,
    floor: int,
    rule: AllocationRule,
) -> list[RankPlan | None]:
    """Plan again, in one vectorised step, clients for whom only bytes bind; None for the others."""
    unknown: list[RankPlan | None] = [None] * len(budgets)
    if not len(order.layer) or order.rank.min() < floor:
        return unknown
    due = order.column > there[:, order.layer]
    spent = np.cumsum(np.where(due, prices.down_bytes[order.layer], 0), axis=1)
    limits = np.array([byte_limit(budget) for budget in budgets], dtype=np.int64)
    fits = spent <= limits[:, None]
    left = limits - np.where(fits, spent, 0).max(axis=1)
    of_layer = (order.layer[:, None] == np.arange(there.shape[1])).astype(np.int64)
    ranks = there + (due & fits).astype(np.int64) @ of_layer
    free = fits[:, 0] & (ranks.sum(axis=1) > 0) & (ranks <= order.rank).all(axis=1)
    if rule.overflow == "skip":
        free &= fits[:, -1] | (left < prices.down_bytes.min())
    free &= affords_all(budgets, prices, ranks, 0.0 if rule.coupled else rule.train_reserve)
    for index in np.flatnonzero(free).tolist():
        row = tuple(ranks[index].tolist())
        unknown[index] = RankPlan(row, row)
    return unknown
