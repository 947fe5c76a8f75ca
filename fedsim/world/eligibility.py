"""When may a device that is there take part? Participation rules cut its intervals down, before any run.

A rule looks at what a device does: is it charging, on which network is it, how full is its battery? That
stands in the columns of the availability file, whose reader drops the rows that break a rule, or in the
events of the state file, which are laid over the intervals here. Afterwards a device that breaks a rule is
simply away.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np

from fedsim.errors import TraceError
from fedsim.world.formats.records import NETWORKS, StateTable
from fedsim.world.population import Intervals, Population

_LONGEST_S = 400 * 86_400.0
_WIFI = NETWORKS.index("wifi")


@dataclass(frozen=True, slots=True)
class Eligibility:
    """The rules; a device takes part while all that are set hold.

    Args:
        charging: Only on the charger.
        unmetered: Only on Wi-Fi.
        min_battery: Only with at least so many percent.
    """

    charging: bool = False
    unmetered: bool = False
    min_battery: float | None = None

    def without(self, columns: frozenset[str]) -> "Eligibility":
        """Leave out the rules that the reader of these availability columns has carried out."""
        return replace(
            self,
            charging=self.charging and "charging" not in columns,
            unmetered=self.unmetered and "network" not in columns,
        )

    @property
    def by_key(self) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
        """Key of the state file -> which of its values obey the rule."""
        rules: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
        if self.charging:
            rules["charging"] = lambda values: values == 1.0
        if self.unmetered:
            rules["network"] = lambda values: values == _WIFI
        least = self.min_battery
        if least is not None:
            rules["battery_pct"] = lambda values: values >= least
        return rules


_NAMES = {"charging": "charging", "network": "unmetered", "battery_pct": "min_battery"}


@dataclass(frozen=True, slots=True, eq=False)
class _Window:
    """When one rule holds for one device: from each instant on, until the next.

    Args:
        times_s: Instants, as the intervals of the device count time.
        holds: Whether the rule holds from then on.
        period_s: Length after which this begins again; infinity if never.
    """

    times_s: np.ndarray
    holds: np.ndarray
    period_s: float

    def at(self, t_s: np.ndarray) -> np.ndarray:
        """Whether the rule holds at these instants; not before the first event, unless events repeat."""
        place = np.searchsorted(self.times_s, np.mod(t_s, self.period_s), side="right") - 1
        before = place < 0
        found = self.holds[place]  # place -1 is the last event: the end of the period before
        return np.asarray(found & ~before if math.isinf(self.period_s) else found)


def with_eligibility(population: Population, rules: Eligibility) -> Population:
    """Let devices take part only while every rule holds.

    Args:
        population: As assembled, before it grows: copies of a device obey by its events.
        rules: Those that the events of the state file decide.

    Raises:
        TraceError: If nothing says what a device with a battery does, or events and intervals repeat in
            periods that do not fit together.
    """
    if not rules.by_key:
        return population
    before_s = after_s = 0.0
    rows: list[tuple[np.ndarray, np.ndarray]] = []
    periods: list[float] = []
    for index in range(population.num_devices):
        starts, ends, period_s = _own(population.intervals, index)
        windows = _windows(population, index, rules)
        length_s = _common(population, index, period_s, ends, windows)
        cut = _cut(starts, ends, period_s, windows, length_s)
        share = 1.0 if math.isinf(length_s) or math.isinf(period_s) else length_s / period_s
        before_s += share * float(_finite(ends - starts).sum())
        after_s += float(_finite(cut[1] - cut[0]).sum())
        rows.append(cut)
        periods.append(length_s)
    offsets = np.concatenate(([0], np.cumsum([len(starts) for starts, _ in rows])))
    intervals = Intervals(
        offsets=offsets,
        starts_s=np.concatenate([starts for starts, _ in rows]),
        ends_s=np.concatenate([ends for _, ends in rows]),
        row=np.arange(population.num_devices),
        period_s=np.array(periods),
        phase_s=population.intervals.phase_s,
    )
    never = sum(len(starts) == 0 for starts, _ in rows)
    left = f", {after_s / before_s:.1%} of the online time is left" if before_s > 0 else ""
    told = ", ".join(_NAMES[key] for key in rules.by_key)
    note = f"eligibility by {told}: {never} of {len(rows)} devices never take part{left}"
    return replace(population, intervals=intervals, notes=(*population.notes, note))


def _finite(lengths: np.ndarray) -> np.ndarray:
    return np.asarray(lengths[np.isfinite(lengths)])


def _own(rows: Intervals, index: int) -> tuple[np.ndarray, np.ndarray, float]:
    row = rows.row[index]
    part = slice(int(rows.offsets[row]), int(rows.offsets[row + 1]))
    return rows.starts_s[part], rows.ends_s[part], float(rows.period_s[index])


def _windows(population: Population, index: int, rules: Eligibility) -> list[_Window]:
    """One window per rule; none for a rule that always holds, as on mains with nothing said."""
    state, row = population.state, int(population.state_row[index])
    ahead_s = population.start_s - float(population.intervals.phase_s[index])
    windows = []
    for key, obeys in rules.by_key.items():
        times, values = _events(state, row, key)
        if len(times) == 0:
            if key != "network" and math.isnan(population.battery_wh[index]):
                continue
            _refuse(population, index, key)
        period_s = math.inf if state is None or state.period_s is None else state.period_s
        holds = obeys(values)
        if holds.all() and (times[0] == 0.0 or math.isfinite(period_s)):
            continue
        moved = times - ahead_s if math.isinf(period_s) else np.mod(times - ahead_s, period_s)
        order = np.argsort(moved, kind="stable")
        windows.append(_Window(moved[order], holds[order], period_s))
    return windows


def _events(state: StateTable | None, row: int, key: str) -> tuple[np.ndarray, np.ndarray]:
    if state is None or row < 0 or key not in state.events:
        return np.empty(0), np.empty(0)
    return state.events[key].of(row)


def _refuse(population: Population, index: int, key: str) -> NoReturn:
    rule = f"eligibility.{_NAMES[key]}"
    name = population.device_ids[index]
    if population.state is None:
        column = "" if key == "battery_pct" else f' a column "{key}" in the availability file, or'
        raise TraceError(
            f'{rule}: expected{column} events of "{key}" in a state file, found neither for the device '
            f'"{name}"; add them, or drop the rule'
        )
    raise TraceError(
        f'{population.state.origin.path}: expected events of "{key}" for the device "{name}", which '
        f"{rule} needs; add them from time 0 on, or drop the rule"
    )


def _common(
    population: Population, index: int, period_s: float, ends: np.ndarray, windows: list[_Window]
) -> float:
    """Length after which intervals and rules together begin again."""
    changing = [window.period_s for window in windows if window.holds.any()]
    if not changing:
        return period_s
    rule_s = changing[0]  # all events of a state file share one period
    if math.isinf(period_s):
        for_ever = len(ends) > 0 and math.isinf(ends[-1])
        return rule_s if for_ever else math.inf
    path = population.state.origin.path if population.state is not None else "state"
    name = population.device_ids[index]
    if math.isinf(rule_s):
        raise TraceError(
            f'{path}: expected a period for its events, since the intervals of "{name}" '
            f"begin again every {period_s:g} s; declare period_s in {path}.toml"
        )
    together_s = float(math.lcm(round(period_s), round(rule_s)))
    whole = period_s == round(period_s) and rule_s == round(rule_s)
    if not whole or together_s > _LONGEST_S:
        raise TraceError(
            f"{path}: expected a period that fits the {period_s:g} s of the intervals of "
            f'"{name}", got {rule_s:g} s; declare a multiple or a part of it'
        )
    return together_s


def _cut(
    starts: np.ndarray, ends: np.ndarray, period_s: float, windows: list[_Window], length_s: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the intervals in which the device is there and every rule holds."""
    if len(ends) == 0:
        return starts, ends
    reach_s = min(length_s, float(ends[-1])) if math.isinf(period_s) else length_s
    edges = [_repeated(np.concatenate((starts, ends)), period_s, reach_s)]
    edges += [_repeated(window.times_s, window.period_s, reach_s) for window in windows]
    marks = np.unique(np.concatenate([[0.0], *edges]))
    marks = marks[(marks >= 0.0) & (marks < reach_s)]
    after = np.append(marks[1:], reach_s)
    middle = np.where(np.isfinite(after), (marks + after) / 2, marks + 1.0)
    keep = _present(starts, ends, np.mod(middle, period_s))
    for window in windows:
        keep &= window.at(middle)
    begins = keep & ~np.concatenate(([False], keep[:-1]))
    finishes = keep & ~np.concatenate((keep[1:], [False]))
    return marks[begins], after[finishes]


def _present(starts: np.ndarray, ends: np.ndarray, at_s: np.ndarray) -> np.ndarray:
    place = np.searchsorted(starts, at_s, side="right") - 1
    return np.asarray((place >= 0) & (at_s < ends[place]))


def _repeated(times_s: np.ndarray, period_s: float, reach_s: float) -> np.ndarray:
    """Repeat instants in every period up to some reach."""
    if math.isinf(period_s):
        return times_s
    turns = np.arange(math.ceil(reach_s / period_s)) * period_s
    return np.asarray((turns[:, None] + times_s).ravel())
