"""What do availability and bandwidth look like in numbers? The figures that a generator is fitted to.

Pure functions of tables; they print nothing and know no file.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedsim.world.formats.records import AvailabilityTable, BandwidthTable, BandwidthTrace
from fedsim.world.trace import StepTrace

DAY_S, HOUR_S = 86_400.0, 3600.0
JOBS_MIN = (5, 10, 30, 60)
QUANTILES = (0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99)
LAGS_S = (1, 10, 30, 60)
OUTAGE_BELOW_MBPS = 0.1


@dataclass(frozen=True, slots=True)
class AvailabilityStatistics:
    """How devices come and go.

    Args:
        num_devices: How many.
        days: Mean length of a device's period.
        online_share: Of all observed time.
        share_mean: Mean over devices of each one's own share.
        share_sd: Standard deviation of that.
        share_quantiles: Quantiles of that, by level.
        hourly_share: Share online in each hour of the file's clock, which is local time.
        diurnal_ratio: Busiest hour over quietest; None if nobody is online in some hour.
        sessions_per_day: Mean number per device.
        session_s: Quantiles of the length of a session, by level.
        session_mean_s: Mean length of a session.
        gap_s: Quantiles of the absence between two sessions of a device, by level.
        cut_from_start: Minutes of a job -> chance that it is cut if it begins with a random session.
        cut_from_online: The same if it begins at a random instant at which the device is online.
    """

    num_devices: int
    days: float
    online_share: float
    share_mean: float
    share_sd: float
    share_quantiles: dict[float, float]
    hourly_share: tuple[float, ...]
    diurnal_ratio: float | None
    sessions_per_day: float
    session_s: dict[float, float]
    session_mean_s: float
    gap_s: dict[float, float]
    cut_from_start: dict[int, float]
    cut_from_online: dict[int, float]


def availability_statistics(
    table: AvailabilityTable, periods_s: np.ndarray | None = None, min_session_s: float = 0.0
) -> AvailabilityStatistics:
    """Describe when devices are online.

    Sessions that the edge of the trace cuts count as they are.

    Args:
        table: Online intervals.
        periods_s: Length of each row's trace; default: that of the table.
        min_session_s: Shorter sessions are left out of the lengths, gaps and chances, not of the shares.
    """
    num = len(table.ids)
    periods = np.full(num, table.period_s) if periods_s is None else periods_s
    row = np.repeat(np.arange(num), np.diff(table.offsets))
    length = table.ends_s - table.starts_s
    own = np.bincount(row, weights=length, minlength=num) / periods
    hourly = _hour_seconds(table.ends_s) - _hour_seconds(table.starts_s)
    observed = _hour_seconds(periods).sum(axis=1)
    hourly_share = hourly.sum(axis=1) / np.maximum(observed, 1e-9)
    long = length >= min_session_s
    sessions = length[long]
    gaps = _gaps(row[long], table.starts_s[long], table.ends_s[long])
    quietest = float(hourly_share.min())
    return AvailabilityStatistics(
        num_devices=num,
        days=float(periods.mean() / DAY_S),
        online_share=float(length.sum() / periods.sum()),
        share_mean=float(own.mean()),
        share_sd=float(own.std()),
        share_quantiles=_quantiles(own),
        hourly_share=tuple(hourly_share.tolist()),
        diurnal_ratio=float(hourly_share.max()) / quietest if quietest > 0 else None,
        sessions_per_day=float(len(sessions) / (periods.sum() / DAY_S)),
        session_s=_quantiles(sessions),
        session_mean_s=float(sessions.mean()) if len(sessions) else float("nan"),
        gap_s=_quantiles(gaps),
        cut_from_start={job: cut_from_start(sessions, 60.0 * job) for job in JOBS_MIN},
        cut_from_online={job: cut_from_online(sessions, 60.0 * job) for job in JOBS_MIN},
    )


def cut_from_start(sessions_s: np.ndarray, job_s: float) -> float:
    """Return the chance that a job which begins with a random session outlasts it."""
    return float(np.mean(sessions_s < job_s)) if len(sessions_s) else float("nan")


def cut_from_online(sessions_s: np.ndarray, job_s: float) -> float:
    """Return the chance that a job which begins at a random online instant outlasts its session.

    Of a session of length L the last min(L, job) seconds are too late to begin, and long sessions hold more
    instants than short ones.
    """
    total = float(np.sum(sessions_s))
    return float(np.minimum(sessions_s, job_s).sum() / total) if total > 0 else float("nan")


def _hour_seconds(times_s: np.ndarray) -> np.ndarray:
    """Seconds of each hour of the day that lie between 0 and each instant, (24, instants)."""
    days, rest = np.divmod(times_s, DAY_S)
    begins = np.arange(24.0)[:, None] * HOUR_S
    return np.asarray(days * HOUR_S + np.clip(rest - begins, 0.0, HOUR_S))


def _gaps(row: np.ndarray, starts_s: np.ndarray, ends_s: np.ndarray) -> np.ndarray:
    same = row[1:] == row[:-1]
    return np.asarray((starts_s[1:] - ends_s[:-1])[same])


def _quantiles(values: np.ndarray, weights: np.ndarray | None = None) -> dict[float, float]:
    """Quantiles by level; with weights, the value at which the weights so far reach the level."""
    if len(values) == 0:
        return dict.fromkeys(QUANTILES, float("nan"))
    if weights is None:
        return dict(zip(QUANTILES, np.quantile(values, QUANTILES).tolist(), strict=True))
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    place = np.searchsorted(reached, np.array(QUANTILES) * reached[-1]).clip(0, len(values) - 1)
    return dict(zip(QUANTILES, values[order][place].tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class RateStatistics:
    """How the bandwidth of one direction of a library behaves.

    Args:
        hours: Length of all traces.
        mean_mbps: Over time.
        sd_mbps: Over time.
        rate_mbps: Quantiles over time, by level.
        median_mbps: Geometric mean outside outages.
        between_ln_sd: Spread of the log rate between traces, outside outages.
        within_ln_sd: Spread of the log rate within traces, outside outages.
        autocorrelation: Lag in seconds -> correlation of the log rate within traces, outside outages; None
            where the lag is shorter than the usual step or longer than the traces.
        outage_share: Share of time below `outage_below_mbps`.
        outage_mean_s: Mean length of an outage; None without any.
        between_outages_s: Mean time between two outages; None without any.
        outage_below_mbps: What counts as an outage.
    """

    hours: float
    mean_mbps: float
    sd_mbps: float
    rate_mbps: dict[float, float]
    median_mbps: float
    between_ln_sd: float
    within_ln_sd: float
    autocorrelation: dict[int, float | None]
    outage_share: float
    outage_mean_s: float | None
    between_outages_s: float | None
    outage_below_mbps: float


@dataclass(frozen=True, slots=True)
class BandwidthStatistics:
    """A library of bandwidth traces; the uplink and the round trip only where they were measured.

    Args:
        num_traces: How many.
        down: Downlink.
        up: Uplink of the traces that have one.
        down_over_up: Median over traces of the ratio of means.
        ratio_ln_sd: Spread of the log of that ratio over traces.
        rtt_ms: Median round trip over traces.
    """

    num_traces: int
    down: RateStatistics
    up: RateStatistics | None
    down_over_up: float | None
    ratio_ln_sd: float | None
    rtt_ms: float | None


def bandwidth_statistics(
    table: BandwidthTable, outage_below_mbps: float = OUTAGE_BELOW_MBPS
) -> BandwidthStatistics:
    """Describe a library of bandwidth traces.

    Args:
        table: The library.
        outage_below_mbps: Rates below this count as an outage.
    """
    with_up = [trace for trace in table.traces if trace.up is not None]
    ratio = np.array([_ratio(trace) for trace in with_up])
    ratio = ratio[np.isfinite(ratio) & (ratio > 0)]
    rtt = [2000.0 * trace.latency_s for trace in table.traces if trace.latency_s is not None]
    ups = [trace.up for trace in with_up if trace.up is not None]
    return BandwidthStatistics(
        num_traces=len(table.traces),
        down=rate_statistics([trace.down for trace in table.traces], outage_below_mbps),
        up=rate_statistics(ups, outage_below_mbps) if ups else None,
        down_over_up=float(np.median(ratio)) if len(ratio) else None,
        ratio_ln_sd=float(np.log(ratio).std()) if len(ratio) else None,
        rtt_ms=float(np.median(rtt)) if rtt else None,
    )


def _ratio(trace: BandwidthTrace) -> float:
    up = float(_mean_mbps(trace.up)) if trace.up is not None else 0.0
    return _mean_mbps(trace.down) / up if up > 0 else float("nan")


def _mean_mbps(trace: StepTrace) -> float:
    mbps, length_s = segments(trace)
    return float(np.average(mbps, weights=length_s))


def segments(trace: StepTrace) -> tuple[np.ndarray, np.ndarray]:
    """Return the rates in Mbit/s of one pass through a trace, and how long each holds."""
    end = trace.period_s if trace.period_s is not None else trace.times_s[-1]
    edges = np.append(trace.times_s, end)
    length_s = np.diff(edges)
    real = length_s > 0
    return trace.values[real] * trace.scale / 1e6, length_s[real]


def rate_statistics(traces: Sequence[StepTrace], outage_below_mbps: float) -> RateStatistics:
    """Describe one direction of several traces."""
    parts = [segments(trace) for trace in traces]
    mbps = np.concatenate([rate for rate, _ in parts])
    length_s = np.concatenate([length for _, length in parts])
    mean = float(np.average(mbps, weights=length_s))
    working = mbps >= outage_below_mbps
    outages, betweens = _runs(parts, outage_below_mbps)
    middle, between, within = _spreads(parts, outage_below_mbps)
    return RateStatistics(
        hours=float(length_s.sum() / HOUR_S),
        mean_mbps=mean,
        sd_mbps=float(np.sqrt(np.average((mbps - mean) ** 2, weights=length_s))),
        rate_mbps=_quantiles(mbps, length_s),
        median_mbps=middle,
        between_ln_sd=between,
        within_ln_sd=within,
        autocorrelation={lag: _autocorrelation(traces, lag, outage_below_mbps) for lag in LAGS_S},
        outage_share=float(length_s[~working].sum() / length_s.sum()),
        outage_mean_s=float(np.mean(outages)) if len(outages) else None,
        between_outages_s=float(np.mean(betweens)) if len(outages) and len(betweens) else None,
        outage_below_mbps=outage_below_mbps,
    )


def _spreads(parts: Sequence[tuple[np.ndarray, np.ndarray]], below: float) -> tuple[float, float, float]:
    """Geometric mean, and spread of the log rate between and within traces, weighted by time."""
    means, inner, weights = [], [], []
    for mbps, length_s in parts:
        works = mbps >= below
        if works.any():
            log, weight = np.log(mbps[works]), length_s[works]
            mean = np.average(log, weights=weight)
            means.append(mean)
            inner.append(np.average((log - mean) ** 2, weights=weight))
            weights.append(weight.sum())
    if not means:
        return 0.0, float("nan"), float("nan")
    middle = np.average(means, weights=weights)
    between = np.sqrt(np.average((np.array(means) - middle) ** 2, weights=weights))
    return float(np.exp(middle)), float(between), float(np.sqrt(np.average(inner, weights=weights)))


def _runs(parts: Sequence[tuple[np.ndarray, np.ndarray]], below: float) -> tuple[np.ndarray, np.ndarray]:
    """Lengths of all stretches below and above the limit; those at the edges count as they are."""
    outages, betweens = [], []
    for mbps, length_s in parts:
        out = mbps < below
        first = np.flatnonzero(np.concatenate(([True], out[1:] != out[:-1])))
        lengths = np.add.reduceat(length_s, first)
        outages.append(lengths[out[first]])
        betweens.append(lengths[~out[first]])
    return np.concatenate(outages), np.concatenate(betweens)


def _autocorrelation(traces: Sequence[StepTrace], lag_s: int, below: float) -> float | None:
    """Correlation of the log rate with itself later, on a grid of one second, means of traces removed.

    A lag below a trace's usual step would compare values with themselves, so such traces do not count.
    """
    product = square = 0.0
    pairs = 0
    for trace in traces:
        end = trace.period_s if trace.period_s is not None else float(trace.times_s[-1])
        if _usual_step_s(trace) > lag_s or end < 2 * lag_s + 1:
            continue
        mbps = sampled_mbps(trace, np.arange(0.0, end, 1.0))
        log = np.log(np.where(mbps >= below, mbps, np.nan))
        log -= np.nanmean(log) if np.isfinite(log).any() else 0.0
        both = np.isfinite(log[lag_s:]) & np.isfinite(log[:-lag_s])
        earlier, later = log[:-lag_s][both], log[lag_s:][both]
        product += float(np.dot(earlier, later))
        square += float(np.dot(earlier, earlier) + np.dot(later, later)) / 2
        pairs += int(both.sum())
    return product / square if pairs > 1 and square > 0 else None


def _usual_step_s(trace: StepTrace) -> float:
    """Shortest of the ordinary steps; equal neighbours are joined, so the median would be too long."""
    return float(np.quantile(np.diff(trace.times_s), 0.1)) if len(trace.times_s) > 1 else np.inf


def sampled_mbps(trace: StepTrace, times_s: np.ndarray) -> np.ndarray:
    """Return the rates at these instants within one pass, in Mbit/s."""
    place = np.searchsorted(trace.times_s, times_s, side="right") - 1
    return np.asarray(trace.values[place] * trace.scale / 1e6)
