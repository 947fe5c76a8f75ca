"""Will this update arrive? What the traces say of a client whose plan is final, before its time has come.

Traces are pure functions of time, so the end of its training and of its upload can be read ahead. Only what
is sure counts: no break, no dip in memory, no link that others may slow down, nothing after the deadline. The
server may still recall the client, which no trace tells.
"""

import math

from fedsim.sim.client import MIN_PHASE_S
from fedsim.sim.trip import Trip
from fedsim.world.cost import Prices


def surely_arrives(trip: Trip, prices: Prices, now_s: float, *, is_trained: bool) -> bool:
    """Whether an update arrives in time unless its client is recalled.

    Args:
        trip: Its plan is final, and its upload shares no link.
        prices: What the plan costs.
        now_s: Its training begins, or ends.
        is_trained: Which of the two.
    """
    device = trip.device
    last_s = min(device.availability.next_departure_s(now_s), trip.assignment.deadline_at_s)
    trained_s = now_s if is_trained else _trained_s(trip, prices, now_s, last_s)
    sent_s = device.uplink.transfer_end_s(trained_s, prices.bill(trip.plan).bytes_up)
    return math.isfinite(sent_s) and max(sent_s, trained_s + MIN_PHASE_S) <= last_s


def _trained_s(trip: Trip, prices: Prices, now_s: float, last_s: float) -> float:
    """Return when the local steps end; infinity if that is too late, or memory falls below what they need."""
    device, bill = trip.device, prices.bill(trip.plan)
    end_s = device.compute_end_s(now_s, bill.flops)
    if not math.isfinite(end_s) or end_s > last_s:
        return math.inf
    if device.memory.falls_below_s(bill.memory_bytes, now_s, end_s) < math.inf:
        return math.inf
    return max(end_s, now_s + MIN_PHASE_S)
