"""A device takes part exactly while it is there and every rule holds, whatever the periods and offsets."""

# ruff: noqa: E501  whole values on one line

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedsim.world.availability import Availability
from fedsim.world.eligibility import Eligibility, with_eligibility
from fedsim.world.formats.records import Events, Origin, StateTable
from fedsim.world.population import Connections, Intervals, Population

NOTHING = np.zeros(1)
LINKS = Connections((), NOTHING, NOTHING, NOTHING, NOTHING, NOTHING)
PHONE = Population(
    ("a",), ("phone",), np.zeros(1, int), NOTHING, NOTHING, np.array([15.0]),
    Intervals(np.zeros(2, int), NOTHING[:0], NOTHING[:0], np.zeros(1, int), NOTHING, NOTHING), LINKS, None, np.zeros(1, int),
)  # fmt: skip
MARKS = st.lists(st.integers(0, 23), min_size=1, max_size=6, unique=True).map(sorted)


@given(
    marks=MARKS,
    times=MARKS,
    values=st.lists(st.integers(0, 100), min_size=6, max_size=6),
    period=st.sampled_from([24, 48, 36, None]),
    state_period=st.sampled_from([24, 48, 60]),
    phase=st.integers(0, 40),
    start=st.integers(0, 40),
    least=st.integers(1, 100),
)
def test_online_is_there_and_rule(marks, times, values, period, state_period, phase, start, least):
    edges = np.array(marks if len(marks) % 2 == 0 else [*marks, 24], dtype=float)
    starts, ends = edges[::2], edges[1::2]
    held = np.array(values[: len(times)], dtype=float)
    state = StateTable(
        ("a",), {"battery_pct": Events(np.array([0, len(times)]), np.array(times, float), held)}, state_period,
        Origin("state.csv", "0"),
    )  # fmt: skip
    own = Intervals(
        np.array([0, len(starts)]), starts, ends, np.zeros(1, int),
        np.array([np.inf if period is None else period]), np.array([float(phase)]),
    )  # fmt: skip
    population = replace(PHONE, intervals=own, state=state, state_row=np.zeros(1, int), start_s=float(start))
    cut = with_eligibility(population, Eligibility(min_battery=least)).availability(0)
    plain = Availability(starts, ends, period, float(phase))
    for t in np.arange(0.5, 400.5):
        place = np.searchsorted(times, (t + start) % state_period, side="right") - 1
        assert cut.is_online(t) == (plain.is_online(t) and bool(held[place] >= least))
