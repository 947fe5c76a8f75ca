import math

from fedsim.world.availability import Availability
from fedsim.world.device import Device
from fedsim.world.link import Link
from fedsim.world.trace import StepTrace


def test_latency_counts_once_at_the_start():
    link = Link(StepTrace.constant(8e6), latency_s=0.25)
    assert link.transfer_end_s(10, 3e6) == 13.25
    assert link.bytes_between(10, 13.25) == 3e6
    assert link.bytes_between(10, 10.1) == 0


def test_a_transfer_waits_through_an_outage():
    link = Link(StepTrace.of([(0, 8), (2, 0), (10, 16)]))
    assert link.transfer_end_s(1, 3) == 11
    assert link.rate_bps(5) == 0
    assert link.next_rate_change_s(5) == 10


def test_a_dead_link_never_ends():
    assert Link(StepTrace.constant(0)).transfer_end_s(0, 1) == math.inf


def test_throttled_compute_takes_longer():
    link = Link(StepTrace.constant(1))
    device = Device(
        0,
        "d",
        "phone",
        StepTrace.constant(1e9),
        StepTrace.of([(0, 100), (10, 50)]),
        link,
        link,
        Availability.always(),
    )
    assert device.compute_end_s(5, 1000) == 20
