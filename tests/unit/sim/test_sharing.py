"""Transfers over shared links end when a hand calculation says, whoever comes, leaves or changes."""

import math
from dataclasses import replace

import pytest

from fedsim.method.pacing import SyncPacing
from fedsim.sim.sharing import Group, SharedCapacity, SharedLinks
from fedsim.sim.timeline import CLOSING, Clock
from fedsim.world.link import Link
from fedsim.world.trace import StepTrace
from tests.toyworld import device, play

MANY_BPS = StepTrace.constant(1e9)


def steps(*pairs):
    return StepTrace.of(pairs)


def client(clock, join, size_bytes, log, begins_s=0.0, leaves_s=math.inf):
    """Send so many bytes, or leave before."""
    yield clock.wake_at(begins_s)
    flow = join()
    while flow.end_s(begins_s, size_bytes) > clock.now:
        yield flow.wake(leaves_s, CLOSING)
        if clock.now >= leaves_s:
            break
    flow.leave()
    log.append((clock.now, flow.done(0.0, clock.now)))


def transfers(capacity, plans, cells=()):
    """Run transfers of (bytes, begin, trace, leave) over one common link; returns (end, bytes) by begin."""
    clock = Clock()
    group = Group(clock, cells, capacity)
    logs = []
    for size, begins_s, trace, leaves_s in plans:
        log = []
        logs.append(log)

        def join(trace=trace):
            return group.join(trace, -1, 0.0)

        clock.process(client(clock, join, size, log, begins_s, leaves_s))
    clock.run()
    return [log[0] for log in logs], group


def test_two_equal_transfers_take_twice_as_long():
    ends, _ = transfers(StepTrace.constant(8.0), [(10, 0.0, MANY_BPS, math.inf)] * 2)
    assert ends == [(20.0, 10.0), (20.0, 10.0)]


def test_who_comes_later_slows_the_first_down_and_has_the_rest_alone():
    # 1 B/s: the first has 5 B at t=5; both at 0.5 B/s until it is done at 15; the other 5 of 10 B take 5 s.
    ends, _ = transfers(
        StepTrace.constant(8.0), [(10, 0.0, MANY_BPS, math.inf), (10, 5.0, MANY_BPS, math.inf)]
    )
    assert ends == [(15.0, 10.0), (20.0, 10.0)]


def test_who_leaves_gives_its_share_back():
    # Until 4 s each has 0.5 B/s; the first then has 8 B left at 1 B/s.
    ends, _ = transfers(StepTrace.constant(8.0), [(10, 0.0, MANY_BPS, math.inf), (10, 0.0, MANY_BPS, 4.0)])
    assert ends == [(12.0, 10.0), (4.0, 2.0)]


def test_a_slow_device_leaves_its_share_to_the_others_until_its_own_link_recovers():
    # 3 B/s together. The slow one has 0.5 B/s to 10 s, then 1.5 B/s; the other 2.5 B/s, then 1.5 B/s.
    slow = steps((0.0, 4.0), (10.0, 80.0))
    ends, _ = transfers(StepTrace.constant(24.0), [(8, 0.0, slow, math.inf), (40, 0.0, MANY_BPS, math.inf)])
    assert ends == [(12.0, 8.0), (16.0, 40.0)]  # at 12 s the other has 28 B; 12 B more at 3 B/s


def test_capacity_that_changes_and_fails():
    # 1 B/s until 2 s, nothing until 5 s, then 2 B/s: 2 + 0 + 8 B.
    ends, _ = transfers(steps((0.0, 8.0), (2.0, 0.0), (5.0, 16.0)), [(10, 0.0, MANY_BPS, math.inf)])
    assert ends == [(9.0, 10.0)]


def test_an_end_at_the_very_instant_of_a_departure_counts():
    ends, _ = transfers(StepTrace.constant(8.0), [(10, 0.0, MANY_BPS, 10.0)])
    assert ends == [(10.0, 10.0)]


def test_a_thousand_at_once_are_solved_once_per_instant():
    ends, group = transfers(StepTrace.constant(8000.0), [(10, 0.0, MANY_BPS, math.inf)] * 1000)
    assert ends == [(10.0, 10.0)] * 1000
    assert group.solves <= 3


def test_devices_of_other_cells_do_not_matter():
    clock = Clock()
    links = SharedLinks(clock, {"download": SharedCapacity((StepTrace.constant(8.0),) * 2)}, [0, 0, 1, -1])
    logs = [[] for _ in range(3)]
    for index, log in enumerate(logs):
        link = Link(MANY_BPS, 0.0)

        def join(index=index, link=link):
            return links.join(index, "download", link)

        clock.process(client(clock, join, 10, log))
    clock.run()
    assert [log[0][0] for log in logs] == [20.0, 20.0, 10.0]
    assert links.join(3, "download", Link(MANY_BPS)) is None
    assert links.join(0, "upload", Link(MANY_BPS)) is None


def test_latency_counts_once_before_the_first_bit():
    clock = Clock()
    links = SharedLinks(clock, {"download": SharedCapacity(common=StepTrace.constant(8.0))})
    log = []
    clock.process(client(clock, lambda: links.join(0, "download", Link(MANY_BPS, 3.0)), 10, log))
    clock.run()
    assert log == [(13.0, 10.0)]


def slow_fleet(bps, count=4):
    """Devices whose computation takes 10 s."""
    link = Link(StepTrace.constant(bps))
    return [replace(device(k, 10.0), downlink=link, uplink=link) for k in range(count)]


@pytest.mark.parametrize("shared_bps", [160.0, 80.0])
def test_a_round_over_a_shared_egress_takes_as_long_as_computed_by_hand(shared_bps):
    # Each receives two columns of 10 B and sends as much; four of them share the egress, nobody the ingress.
    shared = ({"download": SharedCapacity(common=StepTrace.constant(shared_bps))},)
    played = play(slow_fleet(160.0), SyncPacing(4, 1.0, 1, None), rounds=1, shared=shared)
    took = 4 * 8 * 20 / shared_bps + 10.0 + 8 * 20 / 160.0
    assert [line["time_s"] for line in played.lines.of("uploaded")] == pytest.approx([took] * 4)
    assert {line["bytes"] for line in played.lines.of("downloaded")} == {20}


def test_a_wide_link_changes_nothing():
    shared = ({"download": SharedCapacity(common=StepTrace.constant(1e9))},)
    alone = play(slow_fleet(160.0), SyncPacing(4, 1.0, 1, None), rounds=2)
    wide = play(slow_fleet(160.0), SyncPacing(4, 1.0, 1, None), rounds=2, shared=shared)
    assert wide.lines.lines == alone.lines.lines
