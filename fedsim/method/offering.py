"""What is a client offered? The budget that its plan is made for, and the stream that it is delivered by."""

import math

from fedsim.method.config import ServerConfig
from fedsim.method.estimate import LinkHistory, budget, closes_in_s, streaming
from fedsim.method.events import Spectrum
from fedsim.method.messages import Budget, DeviceReport, RankPlan, Stream


def planned_budget(config: ServerConfig, history: LinkHistory, report: DeviceReport) -> Budget:
    """Return the budget of a device that checks in now.

    Args:
        config: Window, deadline and margin.
        history: What the server has seen of links.
        report: What the device tells.
    """
    whole = budget(report, history, window_s=config.planned_window_s, deadline_in_s=config.planned_deadline_s)
    if not config.progressive:
        return whole
    return streaming(
        whole,
        latency_s=report.latency_s,
        window_s=config.download_window_s,
        base_s=config.prices.base_flops / report.flops if report.flops > 0.0 else math.inf,
    )


def first_stream(
    config: ServerConfig,
    spectrum: Spectrum,
    now_s: float,
    report: DeviceReport,
    offered: Budget,
    plan: RankPlan,
) -> Stream | None:
    """Say how a plan is streamed, and until when; None where it is delivered whole.

    Args:
        config: Window, deadline and method.
        spectrum: Of the version that is dispatched.
        now_s: Virtual time of the dispatch.
        report: What the device told.
        offered: The budget from `planned_budget`.
        plan: Made for that budget.
    """
    closes_s = closes_in_s(
        offered,
        latency_s=report.latency_s,
        window_s=config.download_window_s,
        deadline_in_s=config.planned_deadline_s,
    )
    return stream_of(config, spectrum, plan, now_s + closes_s)


def stream_of(config: ServerConfig, spectrum: Spectrum, plan: RankPlan, closes_at_s: float) -> Stream | None:
    """Put the columns of a plan in order; None where plans are delivered whole."""
    order = config.method.streaming.order
    if not config.progressive or order is None:
        return None
    return Stream(order(spectrum, config.prices, plan), closes_at_s)
