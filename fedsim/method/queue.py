"""In which order are clients asked at one look at the fleet? Lazily, since mostly one place is free.

A small fleet is put in order as a whole. Of a large one, rules that can (`Draw`) name clients one after the
other, whoever they are, and those who are away or at work are passed over; so a look costs as much as the
places that it fills, not as the fleet has devices.
"""

from collections.abc import Iterator
from itertools import islice

import numpy as np

from fedsim.method.events import FleetView
from fedsim.method.select import Draw, Occasion, Select

LARGE_FLEET = 4096
"""Devices from which on clients are drawn one by one, where the rule can."""
_TRIES = 1024
_TRIES_PER_SEAT = 64


class Queue:
    """Clients in the order in which they are asked.

    Args:
        fleet: Who is there.
        select: The rule.
        draw: The same rule, if it can name clients without a list of who is there.
        occasion: What the rule is told.
        skip: Clients that are not asked.
    """

    def __init__(
        self,
        fleet: FleetView,
        select: Select,
        draw: Draw | None,
        occasion: Occasion,
        skip: frozenset[int] = frozenset(),
    ) -> None:
        self._fleet = fleet
        self._select = select
        self._draw = draw
        self._occasion = occasion
        self._skip = skip
        self._clients = self._order()

    def next(self, count: int) -> list[int]:
        """Return the next clients, fewer than asked for where there are no more."""
        return list(islice(self._clients, count))

    def _order(self) -> Iterator[int]:
        drawn: dict[int, None] = {}
        if self._draw is not None and self._fleet.num_devices > LARGE_FLEET:
            for client in self._drawn(self._draw, drawn):
                drawn[client] = None
                yield client
        yield from self._listed(drawn)

    def _drawn(self, rule: Draw, drawn: dict[int, None]) -> Iterator[int]:
        """Pass over whoever is away, at work, skipped or drawn; give up when hardly anybody is there."""
        fleet, skip = self._fleet, self._skip
        tries = _TRIES + _TRIES_PER_SEAT * self._occasion.seats
        for client in islice(rule.draw(fleet.num_devices, self._occasion), tries):
            if client not in drawn and client not in skip and fleet.is_idle(client):
                yield client

    def _listed(self, drawn: dict[int, None]) -> Iterator[int]:
        """Put everybody who is there in order, further and further."""
        candidates = without(self._fleet.online(), [*self._skip, *drawn])
        asked, wanted = 0, self._occasion.wanted
        queue = candidates[:0]
        while asked < len(candidates):
            order = self._select(candidates, self._occasion.wanting(wanted))
            queue = np.concatenate((queue, order[~np.isin(order, queue)]))
            if asked == len(queue):
                return  # the rule wants nobody else
            yield from queue[asked:].tolist()
            asked = len(queue)
            wanted *= 4


def without(clients: np.ndarray, left_out: list[int]) -> np.ndarray:
    """Return the clients that are not among these."""
    return clients[~np.isin(clients, left_out)] if left_out else clients
