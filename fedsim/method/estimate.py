"""How fast is a client's link, as far as the server has seen? Estimators over finished transfers.

The server knows no future: it sees how long past transfers took. `oracle` is the exception, for comparisons,
and uses the rate that the world reports.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from fedsim.method.messages import Budget, DeviceReport

Estimator = Literal["harmonic", "last", "ewma", "oracle"]
Direction = Literal["download", "upload"]

NO_DEADLINE_S = 1e12
UNLIMITED = 1e18
EWMA_WEIGHT = 0.5


def estimate_bps(rates_bps: tuple[float, ...], estimator: Estimator) -> float:
    """Combine observed rates, oldest first, into one estimate.

    Args:
        rates_bps: At least one observed rate, bits per second, each > 0.
        estimator: `harmonic` (mean of the reciprocals: the rate at which the same bytes would have taken the
            same time), `last`, or `ewma` (weight one half on the newest).

    Source:
        Harmonic mean of past transfers: Yin et al., "A control-theoretic approach for dynamic adaptive video
        streaming over HTTP", SIGCOMM 2015.
    """
    if estimator == "last":
        return rates_bps[-1]
    if estimator == "ewma":
        average = rates_bps[0]
        for rate in rates_bps[1:]:
            average += EWMA_WEIGHT * (rate - average)
        return average
    return len(rates_bps) / sum(1.0 / rate for rate in rates_bps)


@dataclass(frozen=True, slots=True)
class RateRule:
    """How the server estimates links.

    Args:
        estimator: Which estimator.
        initial_bps: Device class -> (download, upload) before anything was observed.
        default_bps: The same for classes that are not listed.
        window: How many of the newest observations count.
    """

    estimator: Estimator
    initial_bps: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    default_bps: tuple[float, float] = (10e6, 5e6)
    window: int = 5


@dataclass(slots=True)
class LinkHistory:
    """Observed rates of each client and direction; grows with participants, bounded per client."""

    rule: RateRule
    _rates: dict[tuple[int, Direction], tuple[float, ...]] = field(default_factory=dict)

    def observe(self, client: int, direction: Direction, size_bytes: float, duration_s: float) -> None:
        """Take one transfer into account; one that moved nothing says nothing."""
        if size_bytes > 0 and duration_s > 0:
            key = (client, direction)
            rates = (*self._rates.get(key, ()), 8.0 * size_bytes / duration_s)
            self._rates[key] = rates[-self.rule.window :]

    def rate_bps(self, report: DeviceReport, direction: Direction) -> float:
        """Estimated rate of one link of the reporting device, bits per second."""
        if self.rule.estimator == "oracle":
            known = report.known_download_bps if direction == "download" else report.known_upload_bps
            if known is None:
                raise ValueError(
                    f"expected the world to report the {direction} rate of client {report.client}"
                )
            return max(known, 1.0)
        rates = self._rates.get((report.client, direction))
        if rates:
            return estimate_bps(rates, self.rule.estimator)
        down, up = self.rule.initial_bps.get(report.device_class, self.rule.default_bps)
        return down if direction == "download" else up


def budget(
    report: DeviceReport, history: LinkHistory, *, window_s: float, deadline_in_s: float | None
) -> Budget:
    """Budget of a device that checks in now.

    Args:
        report: What the device tells.
        history: What the server has seen of its links.
        window_s: Download window, seconds.
        deadline_in_s: Seconds until the deadline, or None.
    """
    down = history.rate_bps(report, "download")
    up = history.rate_bps(report, "upload")
    seconds = NO_DEADLINE_S if deadline_in_s is None else deadline_in_s - 2.0 * report.latency_s
    return Budget(
        download_bytes=down * max(window_s - report.latency_s, 0.0) / 8.0,
        memory_bytes=report.memory_bytes,
        seconds=seconds,
        download_bps=down,
        upload_bps=up,
        flops=report.flops,
    )


def streaming(whole: Budget, *, latency_s: float, window_s: float, base_s: float) -> Budget:
    """The budget of what may be streamed: no guess about the download, and the time that its window leaves.

    The stream gets its window, and at most half of the time that the frozen base leaves, so that what has
    come can be trained and sent back before the deadline.

    Args:
        whole: As for a plan that is delivered whole.
        latency_s: Of the download.
        window_s: Download window, seconds.
        base_s: Time of the local steps on the bare base.
    """
    moving_s = min(max(window_s - latency_s, 0.0), max(whole.seconds - base_s, 0.0) / 2.0)
    return replace(whole, download_bytes=UNLIMITED, download_bps=UNLIMITED, seconds=whole.seconds - moving_s)


def closes_in_s(streamed: Budget, *, latency_s: float, window_s: float, deadline_in_s: float | None) -> float:
    """Seconds from dispatch until a stream closes, under the budget from `streaming`."""
    if deadline_in_s is None:
        return window_s
    return max(min(window_s, deadline_in_s - latency_s - streamed.seconds), 0.0)


def at_close(streamed: Budget, report: DeviceReport, *, deadline_in_s: float) -> Budget:
    """What a client whose stream has closed may still use.

    Args:
        streamed: The budget it was streamed under.
        report: What the device tells now.
        deadline_in_s: Seconds until the deadline, infinity without one.
    """
    seconds = streamed.seconds
    if math.isfinite(deadline_in_s):
        seconds = max(deadline_in_s - report.latency_s, 0.0)
    return replace(
        streamed, download_bytes=0.0, memory_bytes=report.memory_bytes, seconds=seconds, flops=report.flops
    )


def budget_in_flight(
    planned: Budget, report: DeviceReport, *, waited_s: float, received_bytes: int, window_s: float
) -> Budget:
    """The whole budget, from the first byte, as download progress and the device's report show it now.

    Args:
        planned: The budget for which the plan was made.
        report: What the device tells now.
        waited_s: Seconds since dispatch.
        received_bytes: Bytes that have arrived.
        window_s: Download window, seconds.
    """
    moving_s = waited_s - report.latency_s
    rate = 8.0 * received_bytes / moving_s if moving_s > 0 else planned.download_bps
    return replace(
        planned,
        download_bytes=received_bytes + rate * max(window_s - waited_s, 0.0) / 8.0,
        memory_bytes=report.memory_bytes,
        download_bps=max(rate, 1.0),
        flops=report.flops,
    )


def budget_ahead(
    whole: Budget, *, latency_s: float, deadline_in_s: float, received_bytes: int, column_bytes: int
) -> Budget:
    """What of a budget is still to come when columns have arrived; the column under way is paid for.

    Args:
        whole: The budget from the first byte.
        latency_s: Latency of the upload that is still to come.
        deadline_in_s: Seconds until the deadline, infinity without one.
        received_bytes: Bytes that have arrived.
        column_bytes: Bytes of the columns that have arrived or are under way, whole.
    """
    under_way_s = 8.0 * (column_bytes - received_bytes) / whole.download_bps
    left_s = deadline_in_s - latency_s - under_way_s if math.isfinite(deadline_in_s) else whole.seconds
    return replace(
        whole, download_bytes=max(whole.download_bytes - column_bytes, 0.0), seconds=max(left_s, 0.0)
    )


def moved(old: Budget, new: Budget, threshold: float) -> str:
    """Name the budget that moved by more than the threshold, memory first; empty if none did."""
    for name, before, now in (
        ("memory", old.memory_bytes, new.memory_bytes),
        ("bandwidth", old.download_bytes, new.download_bytes),
        ("compute", old.flops, new.flops),
    ):
        if abs(now - before) > threshold * before:
            return name
    return ""
