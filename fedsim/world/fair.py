"""How is a link shared? Max-min fair: nobody can get more without somebody poorer getting less.

Rates rise together, like water that fills a vessel (progressive filling); a transfer stops rising at its own
limit, or when a link on its way is full. Here a transfer passes its device's own link, perhaps a cell, and
perhaps one link that all share, so the fill goes level by level.

Source:
    Bertsekas and Gallager, "Data networks", 2nd edition, 1992, section 6.5.2.
"""

import math

import numpy as np


def water_level(limits: np.ndarray, capacity: float) -> float:
    """Return the rate at which a link is full when each transfer gets the level or its own limit.

    Args:
        limits: What each transfer could take at most, at least 0.
        capacity: Of the link, in the same unit.

    Returns:
        The level; infinity if the link is never full.
    """
    if limits.sum() <= capacity:
        return math.inf
    ordered = np.sort(limits)
    taken = np.concatenate(([0.0], np.cumsum(ordered[:-1])))
    levels = (capacity - taken) / np.arange(len(ordered), 0, -1)
    return float(max(levels[np.argmax(levels <= ordered)], 0.0))


def fair_rates(
    limits: np.ndarray, cell: np.ndarray, cell_capacity: np.ndarray, capacity: float
) -> np.ndarray:
    """Return the max-min fair rate of each transfer.

    A cell fills first, as if the common link were endless; the common link then fills with what the cells
    let through. Taking the smaller level is exact, because every transfer of a cell passes the common link.

    Args:
        limits: What the own link of each transfer carries.
        cell: Cell of each transfer, -1 for none.
        cell_capacity: Of each cell.
        capacity: Of the link that all transfers share; infinity where there is none.
    """
    through = np.minimum(limits, _cell_levels(limits, cell, cell_capacity))
    return np.asarray(np.minimum(through, water_level(through, capacity)))


def _cell_levels(limits: np.ndarray, cell: np.ndarray, cell_capacity: np.ndarray) -> np.ndarray:
    """Return the level of each transfer's cell; one pass over the sorted transfers fills all cells."""
    if not len(limits) or cell.max() < 0:
        return np.full(len(limits), math.inf)
    order = np.lexsort((limits, cell))
    own, ordered = cell[order], limits[order]
    begins = np.flatnonzero(np.concatenate(([True], own[1:] != own[:-1])))
    counts = np.diff(np.append(begins, len(own)))
    before = np.cumsum(ordered) - ordered
    taken = before - np.repeat(before[begins], counts)
    rest = np.repeat(begins + counts, counts) - np.arange(len(own))
    room = np.append(cell_capacity, math.inf)[own]  # the last one is that of transfers without a cell
    levels = (room - taken) / rest
    place = np.where(levels <= ordered, np.arange(len(own)), len(own))
    first = np.minimum.reduceat(place, begins)
    level = np.append(np.maximum(levels, 0.0), math.inf)[first]
    by_transfer = np.empty(len(own))
    by_transfer[order] = np.repeat(np.where(first < begins + counts, level, math.inf), counts)
    return by_transfer
