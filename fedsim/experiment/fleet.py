"""Which fleet does a scenario name? Reads its traces; loads no tensor library, so that a check is quick."""

from dataclasses import replace

from fedsim.experiment.scenario import Scenario
from fedsim.method.estimate import LinkHistory, budget
from fedsim.method.server import ServerConfig
from fedsim.sim.fleet import Reporter
from fedsim.world.load import load_population
from fedsim.world.population import Population

MOST_ASKED = 1000
"""Of a larger fleet, so many devices stand for all when one rank is sought for everybody."""


def build_population(scenario: Scenario) -> Population:
    """Read and check the fleet of a scenario.

    Args:
        scenario: As loaded.

    Raises:
        InputError: If a file is missing, or a trace is wrong.
    """
    fleet = scenario.fleet
    for key in ("devices", "bandwidth", "availability", "state"):
        path = getattr(fleet, key)
        if path is not None and not path.is_file():
            raise scenario.error(f"fleet.{key}", f"no such file: {path}")
    return load_population(
        devices=fleet.devices,
        bandwidth=fleet.bandwidth,
        availability=fleet.availability,
        state=fleet.state,
        seed=scenario.seed,
        start_s=fleet.start_s,
        availability_policy=fleet.availability_policy,
        merge_gap_s=fleet.merge_gap_s,
        loop=fleet.loop,
        limit=fleet.limit,
        bandwidth_scale=fleet.bandwidth_scale,
        latency_s=fleet.latency_s,
        class_defaults={
            name: (section.memory_bytes, section.compute_flops) for name, section in fleet.classes.items()
        },
    )


def bound_to_fleet(config: ServerConfig, reporter: Reporter) -> ServerConfig:
    """Let a method that has one rank for everybody look at the whole fleet once, at the start of the run.

    Args:
        config: With the method as it was built.
        reporter: Turns devices into what they would tell.

    Returns:
        The configuration with the bound method; unchanged for methods that need no such look.
    """
    bind = config.method.for_fleet
    if bind is None:
        return config
    population, history = reporter.population, LinkHistory(config.rates)
    stride = -(-population.num_devices // MOST_ASKED)
    budgets = [
        budget(
            reporter.report(population.device(index), 0.0),
            history,
            window_s=config.download_window_s,
            deadline_in_s=config.pacing.deadline_s,
        )
        for index in range(0, population.num_devices, stride)
    ]
    return replace(config, method=bind(budgets, config.prices))
