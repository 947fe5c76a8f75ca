"""Which fleet does a scenario name? Reads its traces; loads no tensor library, so that a check is quick."""

from fedsim.experiment.scenario import Scenario
from fedsim.world.load import load_population
from fedsim.world.population import Population


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
