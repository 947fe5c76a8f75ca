"""Laws of the world: queries commute, integrals add up, more bytes never arrive earlier."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsim.errors import TraceError
from fedsim.world.availability import Availability
from fedsim.world.formats.read import read_trace
from fedsim.world.link import Link
from fedsim.world.trace import StepTrace

FEW = settings(max_examples=60, deadline=None)


@st.composite
def step_traces(draw, *, looped=None):
    gaps = draw(st.lists(st.floats(0.01, 500), min_size=0, max_size=8))
    times = np.concatenate(([0.0], np.cumsum(gaps)))
    rates = st.one_of(st.just(0.0), st.floats(1.0, 1e9))
    values = draw(st.lists(rates, min_size=len(times), max_size=len(times)))
    loop = draw(st.booleans()) if looped is None else looped
    period = float(times[-1]) + draw(st.floats(0.01, 500)) if loop else None
    trace = StepTrace(times, np.array(values), period)
    return trace.shifted(draw(st.floats(0, 1e4))).scaled(draw(st.floats(0.01, 100)))


instants = st.floats(0, 700_000)


def brute_value(trace, t):
    position = t + trace.offset_s
    if trace.period_s is not None:
        position %= trace.period_s
    held = [v for s, v in zip(trace.times_s, trace.values, strict=True) if s <= position]
    return (held[-1] if held else trace.values[0]) * trace.scale


@FEW
@given(step_traces(), st.lists(instants, min_size=2, max_size=6), st.randoms())
def test_queries_commute(trace, times, random):
    def answer(t):
        return trace.value(t), trace.next_change_s(t), trace.inverse_integral(t, 1e6), trace.integral(0, t)

    in_order = {t: answer(t) for t in times}
    shuffled = random.sample(times, len(times))
    assert {t: answer(t) for t in shuffled} == in_order


@FEW
@given(step_traces(), instants)
def test_value_equals_the_brute_force_look_up(trace, t):
    assert trace.value(t) == brute_value(trace, t)


@FEW
@given(step_traces(), instants)
def test_next_change_is_later_differs_and_nothing_changes_before(trace, t):
    change = trace.next_change_s(t)
    assert change > t
    if math.isfinite(change):
        assert trace.value(change) != trace.value(t)
        for share in (0.1, 0.5, 0.9):
            assert trace.value(t + share * (change - t) * (1 - 1e-9)) == trace.value(t)


@FEW
@given(step_traces(), instants, st.floats(0, 5000), st.floats(0, 5000))
def test_integral_is_additive(trace, start, first, second):
    middle, end = start + first, start + first + second
    parts = trace.integral(start, middle) + trace.integral(middle, end)
    slack = 1e-9 * float(trace.values.max()) * trace.scale * max(1.0, end)
    assert trace.integral(start, end) == pytest.approx(parts, rel=1e-9, abs=slack)


@FEW
@given(step_traces(), instants, st.floats(1, 5000))
def test_integral_equals_a_walk_from_change_to_change(trace, start, length):
    end, now, total = start + length, start, 0.0
    while now < end:
        step_end = min(end, trace.next_change_s(now))
        total += trace.value(now) * (step_end - now)
        now = step_end
    slack = 1e-9 * float(trace.values.max()) * trace.scale * max(1.0, end)
    assert trace.integral(start, end) == pytest.approx(total, rel=1e-7, abs=slack)


@FEW
@given(step_traces(), instants, st.floats(1, 1e10), st.floats(0, 2))
def test_bytes_sent_until_transfer_end_equal_the_size(trace, start, size, latency):
    link = Link(trace, latency)
    end = link.transfer_end_s(start, size)
    assert end >= start + latency
    if math.isfinite(end):
        # One unit in the last place of the end is worth this many bytes at the fastest rate.
        slack = 4 * math.ulp(end) * float(trace.values.max()) * trace.scale / 8
        assert link.bytes_between(start, end) == pytest.approx(size, rel=1e-9, abs=slack)
        assert link.bytes_between(start, start + (end - start) * 0.999) <= size * (1 + 1e-9) + slack


@FEW
@given(step_traces(looped=True), instants)
def test_only_a_dead_loop_never_ends(trace, start):
    dead = not trace.values.any()
    assert math.isinf(trace.inverse_integral(start, 1e9)) == dead


@FEW
@given(step_traces(), instants, st.floats(1, 1e10), st.floats(1, 1e10), st.floats(0, 2))
def test_more_bytes_never_arrive_earlier(trace, start, one, other, latency):
    link = Link(trace, latency)
    less, more = sorted((one, other))
    first, second = link.transfer_end_s(start, less), link.transfer_end_s(start, more)
    assert second >= first * (1 - 1e-12)


@FEW
@given(step_traces(), instants, st.floats(1, 1e9), st.floats(0.01, 100))
def test_scaled_bytes_on_a_scaled_link_end_at_the_same_instant(trace, start, size, factor):
    plain = Link(trace, 0.1).transfer_end_s(start, size)
    scaled = Link(trace.scaled(factor), 0.1).transfer_end_s(start, size * factor)
    # A rounding error may move the root over an outage that begins exactly there; rates make up for it.
    if plain == scaled == math.inf:
        return
    moved = trace.integral(min(plain, scaled), max(plain, scaled))
    assert moved <= 1e-6 * size * 8 + 8 * math.ulp(plain) * float(trace.values.max()) * trace.scale


@FEW
@given(st.floats(1, 1e9), instants, st.floats(1, 1e9), st.floats(0.01, 100))
def test_on_a_constant_link_scaling_bandwidth_divides_the_time(rate, start, size, factor):
    trace = StepTrace.constant(rate)
    plain = Link(trace).transfer_end_s(start, size) - start
    scaled = Link(trace.scaled(factor)).transfer_end_s(start, size) - start
    assert scaled * factor == pytest.approx(plain, rel=1e-6, abs=1e-9 * max(1.0, factor))


@FEW
@given(step_traces(), st.floats(0, 1e5), instants)
def test_a_shifted_view_is_the_trace_read_later(trace, offset, t):
    template = StepTrace(trace.times_s, trace.values, trace.period_s)
    position = t + offset
    if trace.period_s is not None:
        position = t + offset % trace.period_s
    assert template.shifted(offset).value(t) == template.value(position)


@st.composite
def availabilities(draw):
    cuts = sorted(draw(st.sets(st.integers(0, 400), min_size=0, max_size=12)))
    intervals = list(zip(cuts[::2], cuts[1::2], strict=False))
    period = draw(st.sampled_from([None, 400, 401, 450]))
    phase = draw(st.integers(0, 1000)) if period else 0
    return Availability.of(intervals, period, phase), intervals, period, phase


def online_by_hand(intervals, period, phase, t):
    position = (t + phase) % period if period else t + phase
    return any(a <= position < b for a, b in intervals)


@FEW
@given(availabilities(), st.integers(0, 2000))
def test_availability_equals_brute_force_also_in_later_passes(case, t):
    availability, intervals, period, phase = case
    horizon = t + 3 * (period or 500)
    states = {u: online_by_hand(intervals, period, phase, u) for u in range(t, horizon)}
    assert availability.is_online(t) == states[t]
    leave = next((u for u, on in states.items() if not on), math.inf)
    come = next((u for u, on in states.items() if on), math.inf)
    assert availability.next_departure_s(t) == leave
    assert availability.next_return_s(t) == come


@FEW
@given(availabilities(), st.floats(0, 1e6))
def test_departure_is_away_and_return_is_online_at_fractional_times(case, t):
    availability = case[0]
    leave, come = availability.next_departure_s(t), availability.next_return_s(t)
    assert min(leave, come) == t
    if math.isfinite(leave):
        assert not availability.is_online(leave)
    if math.isfinite(come):
        assert availability.is_online(come)


HEADERS = (
    "device_id,start_s,end_s,network",
    "trace_id,time_s,down_mbps,up_mbps,rtt_ms",
    "device_id,device_class,compute_gflops,mem_available_mib,bandwidth_id",
    "device_id,time_s,key,value",
)
CELLS = st.one_of(
    st.sampled_from(
        ["a", "1", "0", "-1", "1e9", "1e400", "nan", "", '"', "wifi", "#", "=1", "mem_available_mib", "\r"]
    ),
    st.floats(0, 1e6).map(repr),
    st.text(max_size=5),
)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(HEADERS),
    st.lists(st.lists(CELLS, min_size=3, max_size=5), max_size=6),
    st.sampled_from(["normal", "lenient", "strict"]),
    st.booleans(),
)
def test_any_file_is_read_or_refused_in_one_line(tmp_path_factory, header, rows, mode, cut):
    width = len(header.split(","))
    text = header + "\n" + "".join(",".join((row + ["1"] * 5)[:width]) + "\n" for row in rows)
    data = text.encode("utf-8", "surrogatepass")
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(data[: len(data) // 2] if cut else data)
    try:
        messages = read_trace(path, mode=mode).origin.notes
    except TraceError as error:
        messages = (str(error),)
    assert all(len(message.splitlines()) == 1 for message in messages)
    assert all(message.startswith(str(path)) for message in messages)
