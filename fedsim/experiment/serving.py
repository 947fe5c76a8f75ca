"""How do the sections of a scenario become the server's settings?"""

import math
from collections.abc import Callable

from fedsim.experiment.scenario import Scenario
from fedsim.experiment.server_section import ServerSection
from fedsim.method.bundle import Method
from fedsim.method.estimate import RateRule
from fedsim.method.pacing import BufferedPacing, Mixing, Pacing, SyncPacing
from fedsim.method.select import build_select
from fedsim.method.server import ServerConfig, StopRule
from fedsim.method.staleness import StalenessRule
from fedsim.seeds import Seeds
from fedsim.world.cost import Prices

MBIT = 1e6


def server_config(scenario: Scenario, seeds: Seeds, method: Method, prices: Prices) -> ServerConfig:
    """Make everything that the server is told once.

    Args:
        scenario: As loaded.
        seeds: Streams of the run.
        method: Its decisions.
        prices: Of one assignment.

    Raises:
        ScenarioError: If the method cannot mix versions and the pacing does.
    """
    server, stop = scenario.server, scenario.stop
    pacing = build_pacing(server)
    if pacing.mixing is not None and method.sync_only:
        raise scenario.error(
            "server.pacing", f"the method {method.name} needs sync, got {server.pacing}: {method.sync_only}"
        )
    _check_transfers(scenario, method)
    if pacing.mixing is not None and pacing.mixing.subspace and method.no_subspace:
        raise scenario.error(
            "server.staleness.subspace", f"the method {method.name} needs false: {method.no_subspace}"
        )
    return ServerConfig(
        method=method,
        pacing=pacing,
        select=build_select(server.select, seeds),
        prices=prices,
        rates=_rates(scenario),
        seeds=seeds,
        steps=scenario.training.local_steps,
        learning_rate=_learning_rate(scenario),
        download_window_s=server.download_window_s,
        replan=server.replan,
        replan_threshold=server.replan_threshold,
        evaluate_every=scenario.evaluation.every,
        stop=StopRule(stop.rounds, stop.target_loss),
        progressive=server.delivery == "progressive",
        partial_upload=server.upload == "progressive",
        safety_margin=server.safety_margin,
    )


def _check_transfers(scenario: Scenario, method: Method) -> None:
    """Refuse a method that cannot make use of a part of a transfer."""
    server = scenario.server
    if server.delivery == "progressive" and method.streaming.order is None:
        raise scenario.error(
            "server.delivery",
            f"the method {method.name} needs planned, got progressive: {method.streaming.refusal}",
        )
    if server.upload == "progressive" and method.needs_whole_uploads:
        raise scenario.error(
            "server.upload",
            f"the method {method.name} needs whole, got progressive: {method.needs_whole_uploads}",
        )


def build_pacing(server: ServerSection) -> Pacing:
    """Make the pacing rule; the section has checked that its options are there."""
    if server.pacing in ("buffered", "async"):
        return BufferedPacing(
            concurrency=server.concurrency or 1,
            buffer_size=server.buffer or 1,
            min_updates=server.min_updates,
            deadline_s=server.deadline_s,
            mixing=_mixing(server),
        )
    return SyncPacing(
        cohort=server.cohort or 1,
        over_selection=server.over_selection or 1.0,
        min_updates=server.min_updates,
        deadline_s=server.deadline_s,
        surplus=server.surplus or "finish",
        late=_mixing(server) if server.pacing == "semi_sync" else None,
    )


def _mixing(server: ServerSection) -> Mixing:
    section = server.staleness
    given = {} if section is None else section.model_dump(exclude_none=True)
    subspace = bool(given.pop("subspace", False))
    rate = server.server_learning_rate or 1.0
    return Mixing(StalenessRule(**given), server.max_staleness, rate, subspace)


def _rates(scenario: Scenario) -> RateRule:
    server = scenario.server
    initial = {
        name: (
            (section.initial_down_mbps or server.initial_down_mbps) * MBIT,
            (section.initial_up_mbps or server.initial_up_mbps) * MBIT,
        )
        for name, section in scenario.fleet.classes.items()
    }
    default = (server.initial_down_mbps * MBIT, server.initial_up_mbps * MBIT)
    return RateRule(server.estimator, initial, default)


def _learning_rate(scenario: Scenario) -> Callable[[int], float]:
    """Linear from the first version to the last planned one."""
    first, factor = scenario.training.learning_rate, scenario.training.final_learning_rate_factor
    rounds = scenario.stop.rounds
    if rounds is None:
        if not math.isclose(factor, 1.0):
            raise scenario.error(
                "training.final_learning_rate_factor",
                f"expected stop.rounds to be set, so that a decay to {factor:g} has an end; set it or use 1",
            )
        return lambda _version: first
    return lambda version: first * (1.0 - (1.0 - factor) * min(version / max(rounds - 1, 1), 1.0))
