"""How does a small fleet become a large one? Template devices, drawn again and again, each moved in time.

A copy is moved by whole days only, so that the daily rhythm stays; its link begins elsewhere in the shared
trace and has its own factor. No public trace joins presence, bandwidth and speed of the same device, so how
they go together is the user's to say: as in the templates, independent, or with stated rank correlations.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from fedsim.errors import TraceError
from fedsim.seeds import Seeds
from fedsim.world.calibration import RATIO_MODELS
from fedsim.world.population import Connections, Intervals, Population

_DAY_S = 86_400.0
_EDGE = 1e-12


@dataclass(frozen=True, slots=True)
class Pairing:
    """How presence, bandwidth and speed of a device go together.

    Args:
        kind: ``kept`` copies whole templates, ``independent`` draws the three apart, ``correlated`` draws
            them with the rank correlations below (Spearman), by a Gaussian copula.
        within: Whether the three come from templates of one class, or of the whole fleet, in which case the
            correlations hold over the fleet.
        availability_compute: Between online share and speed.
        bandwidth_compute: Between mean downlink rate and speed.
        availability_bandwidth: Between online share and mean downlink rate.
    """

    kind: Literal["kept", "independent", "correlated"] = "kept"
    within: Literal["class", "fleet"] = "class"
    availability_compute: float = 0.0
    bandwidth_compute: float = 0.0
    availability_bandwidth: float = 0.0

    def mixing(self) -> np.ndarray:
        """Return the lower triangle that turns independent normals into those of speed, presence, bandwidth.

        A normal copula whose correlation is 2 sin(pi rho / 6) has the rank correlation rho.

        Raises:
            TraceError: If no three quantities can have these correlations together.
        """
        if self.kind == "independent":
            return np.eye(3)
        ranks = (self.availability_compute, self.bandwidth_compute, self.availability_bandwidth)
        a, b, c = (2 * math.sin(math.pi * rho / 6) for rho in ranks)
        if np.linalg.eigvalsh(np.array([[1, a, b], [a, 1, c], [b, c, 1]]))[0] < -1e-9:
            raise TraceError(
                f"pairing: expected rank correlations that are possible together, got {ranks}; weaken one"
            )
        rest = math.sqrt(max(0.0, 1 - a * a))
        inner = (c - a * b) / rest if rest > 0 else 0.0
        return np.array([[1, 0, 0], [a, rest, 0], [b, inner, math.sqrt(max(0.0, 1 - b * b - inner * inner))]])


@dataclass(frozen=True, slots=True)
class Growth:
    """What a large fleet is drawn by.

    Args:
        size: Devices to make.
        shares: Class -> share; empty for those of the templates.
        pairing: How presence, bandwidth and speed go together.
        zones_h: Hours from UTC -> share; empty to leave each template in its zone.
        scale_ln_sd: Spread of the log of each device's own factor on its template's rates.
        network_family: Which down/up ratio holds where no uplink was measured.
    """

    size: int
    shares: Mapping[str, float] = field(default_factory=dict)
    pairing: Pairing = Pairing()
    zones_h: Mapping[float, float] = field(default_factory=dict)
    scale_ln_sd: float = 0.0
    network_family: str = "wifi"


@dataclass(frozen=True, slots=True, eq=False)
class _Parts:
    """Which template each new device takes its machine, its presence and its link from."""

    machine: np.ndarray
    presence: np.ndarray
    link: np.ndarray


def grow_population(templates: Population, tz_s: np.ndarray, growth: Growth, seeds: Seeds) -> Population:
    """Draw a fleet from template devices.

    Args:
        templates: The small fleet.
        tz_s: Offset from UTC of each template.
        growth: Size and rules.
        seeds: Root of the draws.

    Returns:
        A fleet that shares the interval, bandwidth and state arrays of the templates.

    Raises:
        TraceError: If a class is unknown, shares do not add up to 1, or correlations are impossible.
    """
    parts = _draw_parts(templates, growth, seeds.generator("grow"))
    moved_s, zone_s = _moves(templates, tz_s, parts.presence, growth, seeds.generator("shift"))
    class_index = templates.class_index[parts.machine].astype(np.int16)
    own_tz = zone_s if growth.zones_h else tz_s[parts.machine]
    return replace(
        templates,
        device_ids=_names(templates.class_names, class_index),
        class_index=class_index,
        memory_bytes=templates.memory_bytes[parts.machine],
        compute_flops=templates.compute_flops[parts.machine],
        battery_wh=templates.battery_wh[parts.machine],
        intervals=_intervals(templates.intervals, parts.presence, moved_s, zone_s - tz_s[parts.presence]),
        connections=_connections(templates, parts.link, growth, seeds.generator("link")),
        state_row=templates.state_row[parts.machine].astype(np.int32),
        state_shift_s=_state_shift(templates, moved_s) + (own_tz - tz_s[parts.machine]).astype(np.int32),
        notes=(*templates.notes, _note(templates, growth)),
        cell=None if templates.cell is None else templates.cell[parts.link],
    )


def _note(templates: Population, growth: Growth) -> str:
    return (
        f"{growth.size} devices drawn from {templates.num_devices} templates, shifted by whole days; "
        f"presence, bandwidth and speed {growth.pairing.kind}"
    )


def _names(class_names: tuple[str, ...], class_index: np.ndarray) -> tuple[str, ...]:
    """Name devices by class and number, counted in their order."""
    width = len(str(len(class_index)))
    names = np.empty(len(class_index), dtype=object)
    for k, name in enumerate(class_names):
        members = np.flatnonzero(class_index == k)
        names[members] = [f"{name}-{n:0{width}d}" for n in range(1, len(members) + 1)]
    return tuple(names.tolist())


def _draw_parts(templates: Population, growth: Growth, rng: np.random.Generator) -> _Parts:
    shares = _shares(templates, growth.shares)
    in_class = np.bincount(templates.class_index, minlength=len(shares))
    weights = (shares / np.maximum(in_class, 1))[templates.class_index]
    scores = (
        templates.compute_flops,
        _online_shares(templates.intervals),
        _mean_rates(templates.connections),
    )
    per_class = growth.pairing.within == "class"
    groups = (
        [np.flatnonzero(templates.class_index == k) for k in range(len(shares))]
        if per_class
        else [np.arange(templates.num_devices)]
    )
    sizes = _dealt(shares, growth.size) if per_class else [growth.size]
    drawn = [
        _draw_group(group, [score[group] for score in scores], weights[group], size, growth.pairing, rng)
        for group, size in zip(groups, sizes, strict=True)
        if size
    ]
    order = rng.permutation(growth.size)
    return _Parts(*(np.concatenate([part[k] for part in drawn])[order] for k in range(3)))


def _shares(templates: Population, shares: Mapping[str, float]) -> np.ndarray:
    if not shares:
        counts = np.bincount(templates.class_index, minlength=len(templates.class_names))
        return np.asarray(counts / counts.sum())
    known = templates.class_names
    for name in shares:
        if name not in known:
            raise TraceError(
                f'shares: expected one of {", ".join(known)}, got "{name}"; rename or add devices'
            )
    check_shares("shares", shares)
    return np.array([shares.get(name, 0.0) for name in known])


def check_shares(where: str, shares: Mapping[str, float]) -> None:
    """Refuse shares that are negative or do not add up to 1."""
    total = sum(shares.values())
    if min(shares.values()) < 0 or abs(total - 1) > 1e-6:
        raise TraceError(f"{where}: expected shares >= 0 that add up to 1, got a sum of {total:g}; mend them")


def _dealt(shares: np.ndarray, size: int) -> list[int]:
    """Whole numbers in these shares that add up to the size: largest remainders get the rest."""
    exact = shares * size
    counts = np.floor(exact + _EDGE).astype(np.int64)
    rest = np.argsort(-(exact - counts), kind="stable")[: size - int(counts.sum())]
    counts[rest] += 1
    return [int(count) for count in counts]


def _draw_group(
    members: np.ndarray,
    scores: list[np.ndarray],
    weights: np.ndarray,
    size: int,
    pairing: Pairing,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """Draw machine, presence and link for so many devices; machines are dealt evenly over their ranks."""
    from scipy.special import ndtr, ndtri  # noqa: PLC0415 - keeps checks of plain fleets quick

    level = (rng.permutation(size) + rng.random(size)) / size
    if pairing.kind == "kept":
        machine = members[_at_level(scores[0], weights, level, rng)]
        return [machine, machine, machine]
    normals = np.stack([ndtri(np.clip(level, _EDGE, 1 - _EDGE)), *rng.standard_normal((2, size))])
    levels = [level, *ndtr(pairing.mixing()[1:] @ normals)]
    return [members[_at_level(score, weights, own, rng)] for score, own in zip(scores, levels, strict=True)]


def _at_level(
    score: np.ndarray, weights: np.ndarray, level: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return the templates at these levels of the weighted order by score; equal scores in random order."""
    order = np.lexsort((rng.random(len(score)), score))
    reached = np.cumsum(weights[order])
    place = np.searchsorted(reached, level * reached[-1], side="right")
    return np.asarray(order[np.minimum(place, len(order) - 1)])


def _online_shares(rows: Intervals) -> np.ndarray:
    """Long-run online share of each template."""
    summed = np.concatenate(([0.0], np.cumsum(np.where(np.isfinite(rows.ends_s), rows.ends_s, 0.0))))
    begun = np.concatenate(([0.0], np.cumsum(rows.starts_s)))
    low, high = rows.offsets[rows.row], rows.offsets[rows.row + 1]
    online_s = (summed[high] - summed[low]) - (begun[high] - begun[low])
    # Without a period only the order counts: the always-online first, then by total time.
    last = np.minimum(np.maximum(high - 1, 0), max(len(rows.ends_s) - 1, 0))
    always = (high > low) & ~np.isfinite(rows.ends_s[last]) if len(rows.ends_s) else np.zeros(len(low), bool)
    period = np.where(np.isfinite(rows.period_s), rows.period_s, 1e12)
    return np.asarray(np.where(always, 1.0, online_s / period))


def _mean_rates(own: Connections) -> np.ndarray:
    means = []
    for entry in own.library:
        trace = entry.down
        end = trace.period_s if trace.period_s is not None else max(float(trace.times_s[-1]), 1.0)
        means.append(trace.integral(0.0, end) / end)
    return np.asarray(np.array(means)[own.trace] * own.scale)


def _moves(
    templates: Population, tz_s: np.ndarray, presence: np.ndarray, growth: Growth, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw whole days for devices whose period is made of whole days, and a zone if zones are given."""
    period = templates.intervals.period_s[presence]
    length = np.where(np.isfinite(period), period, 0.0)
    whole = np.isfinite(period) & (np.mod(length, _DAY_S) == 0)
    days = np.where(whole, length // _DAY_S, 1.0)
    moved_s = np.floor(rng.random(len(presence)) * days) * _DAY_S
    if not growth.zones_h:
        return moved_s, tz_s[presence]
    check_shares("time_zones", {f"{hours:g}": share for hours, share in growth.zones_h.items()})
    hours = np.array(list(growth.zones_h))
    zone = rng.choice(hours, len(presence), p=np.array(list(growth.zones_h.values())))
    return moved_s, zone * 3600.0


def _intervals(rows: Intervals, presence: np.ndarray, moved_s: np.ndarray, turned_s: np.ndarray) -> Intervals:
    return replace(
        rows,
        row=rows.row[presence].astype(np.int32),
        period_s=rows.period_s[presence],
        phase_s=rows.phase_s[presence] + moved_s + turned_s,
    )


def _connections(
    templates: Population, link: np.ndarray, growth: Growth, rng: np.random.Generator
) -> Connections:
    own = templates.connections
    trace = own.trace[link].astype(np.int32)
    periods = np.array([entry.down.period_s or 0.0 for entry in own.library])
    model = RATIO_MODELS[growth.network_family]
    unmeasured = np.array([entry.up is None for entry in own.library])[trace]
    ratio = np.exp(rng.normal(model.ln_mean, model.ln_sd, len(link)))
    return replace(
        own,
        trace=trace,
        offset_s=own.offset_s[link] + rng.random(len(link)) * periods[trace],
        scale=own.scale[link] * np.exp(growth.scale_ln_sd * rng.standard_normal(len(link))),
        down_over_up=np.where(unmeasured, ratio, 1.0),
        latency_s=own.latency_s[link],
    )


def _state_shift(templates: Population, moved_s: np.ndarray) -> np.ndarray:
    """Events move by the same whole days, where their period is made of such."""
    period = None if templates.state is None else templates.state.period_s
    if period is None or period % _DAY_S:
        return np.zeros(len(moved_s), dtype=np.int32)
    return np.asarray(np.mod(moved_s, period), dtype=np.int32)
