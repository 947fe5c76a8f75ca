"""How are believable traces made? Vectorised generators whose statistics follow `calibration`.

Each takes a random generator and returns arrays; nothing here writes a file or knows a recipe.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from fedsim.world.calibration import (
    HOURLY_ONLINE,
    LEVELS,
    RATIO_MODELS,
    TAU_CORRECTION,
    UP_CORRELATION,
    NetworkFamily,
    Presence,
)

DAY_S = 86_400
_STEP_S = 60
_WARM_DAYS = 2
_EPS = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Stays:
    """Online intervals of several devices, sorted by device and time, in whole seconds of local time."""

    device: np.ndarray
    starts_s: np.ndarray
    ends_s: np.ndarray


def synth_presence(num_devices: int, days: int, presence: Presence, rng: np.random.Generator) -> Stays:
    """Let devices come and go with a daily rhythm.

    A two-state process in steps of a minute. A device's long-run share is drawn from a Beta distribution; the
    hour moves its logit; at each change a factor on the switching rate is drawn from one of two log-normal
    distributions, long stays and short ones, which spreads lengths over three orders of magnitude. Two days
    pass before the trace begins.

    Source:
        Fitted to Berta, Bilicki and Jelasity, "Defining and understanding smartphone churn over the
        internet", P2P 2014 (the STUNner trace).
    """
    share = np.ascontiguousarray(_hourly_share(num_devices, presence, rng).T)
    online = rng.random(num_devices) < share[0]
    factor = _factors(presence, num_devices, rng)
    per_step = presence.rate_per_h * _STEP_S / 3600.0
    changed: list[np.ndarray] = []
    at_s: list[np.ndarray] = []
    steps_per_hour, warm = 3600 // _STEP_S, _WARM_DAYS * DAY_S // _STEP_S
    begins_online = online
    draws, hazard = np.empty(num_devices), np.empty(num_devices)
    for step in range(-warm, days * DAY_S // _STEP_S):
        if step == 0:
            begins_online = online.copy()
        target = share[step // steps_per_hour % 24]
        if step % steps_per_hour == 0:
            hazard = factor * per_step * np.where(online, 1.0 - target, target)
        rng.random(out=draws)
        flips = np.flatnonzero(draws < hazard)
        within = rng.integers(0, _STEP_S, len(flips))
        online[flips] = ~online[flips]
        factor[flips] = _factors(presence, len(flips), rng)
        # Between full hours only devices that changed have another hazard.
        aim = target[flips]
        hazard[flips] = factor[flips] * per_step * np.where(online[flips], 1.0 - aim, aim)
        if step >= 0:
            changed.append(flips)
            at_s.append(step * _STEP_S + within)
    return _stays(begins_online, np.concatenate(changed), np.concatenate(at_s), days * DAY_S)


def _factors(presence: Presence, num: int, rng: np.random.Generator) -> np.ndarray:
    """Factors on the switching rate; without short stays nothing more is drawn, so that old recipes hold."""
    spread = rng.standard_normal(num)
    long = np.exp(presence.ln_sd * spread)
    if presence.short_share == 0.0:
        return np.asarray(long)
    short = presence.short_factor * np.exp(presence.short_ln_sd * spread)
    return np.where(rng.random(num) < presence.short_share, short, long)


def _hourly_share(num_devices: int, presence: Presence, rng: np.random.Generator) -> np.ndarray:
    """Target share per device and local hour; the hour looks one ahead, because presence lags its target."""
    own = np.clip(rng.beta(*presence.beta, num_devices), _EPS, 1 - _EPS)
    hourly = np.array(HOURLY_ONLINE)
    rhythm = np.log(hourly / (1 - hourly))
    rhythm = np.roll(rhythm - rhythm.mean(), -1)
    logit = np.log(own / (1 - own))[:, None] + presence.diurnal * rhythm
    return np.asarray(1.0 / (1.0 + np.exp(-logit)))


def _stays(begins_online: np.ndarray, changed: np.ndarray, at_s: np.ndarray, end_s: int) -> Stays:
    """Turn changes into intervals: those online at the edges start at 0 or last to the end."""
    everyone = np.arange(len(begins_online))
    counts = np.bincount(changed, minlength=len(everyone))
    ends_online = begins_online ^ (counts % 2 == 1)
    device = np.concatenate((everyone[begins_online], changed, everyone[ends_online]))
    edge_s = np.concatenate(
        (np.zeros(begins_online.sum(), int), at_s, np.full(ends_online.sum(), end_s, int))
    )
    order = np.lexsort((edge_s, device))
    device, edge_s = device[order], edge_s[order]
    starts, ends = edge_s[::2], edge_s[1::2]
    real = ends > starts
    return Stays(device[::2][real], starts[real], ends[real])


@dataclass(frozen=True, slots=True, eq=False)
class Rates:
    """Rates of several traces of one family, (steps, traces), in Mbit/s, and a round trip per trace."""

    down_mbps: np.ndarray
    up_mbps: np.ndarray
    rtt_ms: np.ndarray


def synth_rates(
    family: NetworkFamily, num_traces: int, num_steps: int, step_s: float, rng: np.random.Generator
) -> Rates:
    """Let bandwidth fade as it does on a network of this family.

    A slow and a fast AR(1) process add up to a standard normal that is mapped to the family's marginal; an
    on-off chain cuts outages. Both directions share the slow part and the outages.
    """
    middle = family.median_mbps * np.exp(family.between_sd * rng.standard_normal(num_traces))
    ratio_model = RATIO_MODELS[family.ratio]
    ratio = np.exp(rng.normal(ratio_model.ln_mean, ratio_model.ln_sd, num_traces))
    slow = _ar1(num_steps, num_traces, step_s, TAU_CORRECTION * family.slow_s, rng)
    fast = _ar1(num_steps, num_traces, step_s, TAU_CORRECTION * family.fast_s, rng)
    other = _ar1(num_steps, num_traces, step_s, TAU_CORRECTION * family.fast_s, rng)
    fast_up = UP_CORRELATION * fast + math.sqrt(1 - UP_CORRELATION**2) * other
    a, b = math.sqrt(family.slow_weight), math.sqrt(1 - family.slow_weight)
    working = ~_outages(family, num_steps, num_traces, step_s, rng)
    return Rates(
        down_mbps=working * middle * _relative_rate(family, a * slow + b * fast),
        up_mbps=working * (middle / ratio) * _relative_rate(family, a * slow + b * fast_up),
        rtt_ms=family.rtt_ms * np.exp(0.2 * rng.standard_normal(num_traces)),
    )


def _ar1(num_steps: int, num: int, step_s: float, tau_s: float, rng: np.random.Generator) -> np.ndarray:
    """Stationary AR(1) with unit variance, one column per trace."""
    keep = math.exp(-step_s / tau_s)
    noise = rng.standard_normal((num_steps, num))
    noise[1:] *= math.sqrt(1 - keep**2)
    for step in range(1, num_steps):
        noise[step] += keep * noise[step - 1]
    return noise


def _relative_rate(family: NetworkFamily, normal: np.ndarray) -> np.ndarray:
    """Map a standard normal to the family's marginal, log-linear between measured quantiles."""
    levels = [NormalDist().inv_cdf(level) for level in LEVELS]
    return np.asarray(np.exp(np.interp(normal, levels, np.log(family.quantiles))))


def _outages(
    family: NetworkFamily, num_steps: int, num: int, step_s: float, rng: np.random.Generator
) -> np.ndarray:
    """On-off chain with the family's mean lengths, True in an outage; no trace begins in one."""
    fall, rise = min(1.0, step_s / family.up_s), min(1.0, step_s / family.outage_s)
    draws = rng.random((num_steps, num))
    out = np.zeros((num_steps, num), dtype=bool)
    for step in range(1, num_steps):
        out[step] = np.where(out[step - 1], draws[step] >= rise, draws[step] < fall)
    return out


@dataclass(frozen=True, slots=True)
class Disturbance:
    """Something that takes a part of a device for a while: a foreground app, heat.

    Args:
        per_day: Mean number per day.
        median_s: Median length.
        ln_sd: Spread of the log length.
        share: Smallest and largest part taken.
    """

    per_day: float
    median_s: float
    ln_sd: float
    share: tuple[float, float]


_SHORTEST_S, _LONGEST_S = 60.0, 4 * 3600.0
_LEAST_LEFT = 0.1


def synth_disturbances(
    kind: Disturbance, days: int, tz_offset_s: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return instants (UTC) and the share that is left from each on; both are empty without any disturbance.

    Starts follow the waking hours of the device's zone; overlapping disturbances multiply; at the end
    all is free again, so that it can begin anew. Rates and lengths are judgement.
    """
    num = int(rng.poisson(kind.per_day * days))
    length = np.exp(math.log(kind.median_s) + kind.ln_sd * rng.standard_normal(num))
    starts = _waking_start(num, days, tz_offset_s, rng)
    ends = np.minimum(starts + np.clip(length, _SHORTEST_S, _LONGEST_S).astype(int), days * DAY_S - 1)
    left = 1.0 - rng.uniform(*kind.share, num)
    edges = np.unique(np.concatenate((starts, ends)))
    active = (starts <= edges[:, None]) & (edges[:, None] < ends)
    free = np.where(active, left, 1.0).prod(axis=1)
    return edges, np.maximum(free, _LEAST_LEFT)


def _waking_start(num: int, days: int, tz_offset_s: int, rng: np.random.Generator) -> np.ndarray:
    """Draw whole seconds, four in five of them between 8 and 23 o'clock local time."""
    awake = rng.random(num) < 0.8
    local = np.where(awake, rng.integers(8 * 3600, 23 * 3600, num), rng.integers(0, DAY_S, num))
    day = rng.integers(0, days, num)
    return np.asarray(day * DAY_S + (local - tz_offset_s) % DAY_S)


@dataclass(frozen=True, slots=True)
class Battery:
    """How a battery is used.

    Args:
        charging: When the device is on the charger.
        hours_to_full: From empty, on the charger.
        hours_to_empty: From full, off it.
    """

    charging: Presence
    hours_to_full: float
    hours_to_empty: float


_LEVEL_STEP = 10.0


def synth_battery(
    battery: Battery, starts_s: np.ndarray, ends_s: np.ndarray, period_s: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return instants and the level in percent from each on: at changes of the charger, and every ten points.

    The level rises and falls at constant rates. It begins as the period ends, so that it can begin anew.

    Args:
        battery: Its rates.
        starts_s: When the charger is plugged in; sorted, inside the period.
        ends_s: When it is unplugged.
        period_s: Length of the trace.
    """
    edges = np.unique(np.concatenate(([0.0], starts_s, ends_s[ends_s < period_s])))
    plugged = np.searchsorted(starts_s, edges, side="right") > np.searchsorted(ends_s, edges, side="right")
    up, down = 100.0 / (3600.0 * battery.hours_to_full), -100.0 / (3600.0 * battery.hours_to_empty)
    slopes = np.where(plugged, up, down)
    lengths = np.diff(np.append(edges, period_s))
    level = 100.0
    for slope, length in zip(slopes.tolist(), lengths.tolist(), strict=True):
        level = min(100.0, max(0.0, level + slope * length))
    times: list[float] = []
    levels: list[float] = []
    for start, slope, length in zip(edges.tolist(), slopes.tolist(), lengths.tolist(), strict=True):
        reached = min(100.0, max(0.0, level + slope * length))
        passed = [(start + (at - level) / slope, at) for at in _levels_between(level, reached)]
        passed = [
            (time_s, at) for time_s, at in passed if time_s < start + length
        ]  # else the next edge tells
        times += [start, *(time_s for time_s, _ in passed)]
        levels += [level, *(at for _, at in passed)]
        level = reached
    return np.array(times), np.array(levels)


def _levels_between(level: float, reached: float) -> list[float]:
    """Multiples of ten points on the way, the end included."""
    low, high = min(level, reached), max(level, reached)
    steps = np.arange(math.ceil(low / _LEVEL_STEP), math.floor(high / _LEVEL_STEP) + 1) * _LEVEL_STEP
    passed = [float(step) for step in steps if step != level]
    return passed if reached > level else passed[::-1]
