"""Which links do devices share, as a scenario says?"""

from fedsim.experiment.scenario import Scenario
from fedsim.experiment.sections import CellsSection
from fedsim.sim.sharing import Direction, SharedCapacity
from fedsim.world.population import Population
from fedsim.world.trace import StepTrace

MBIT = 1e6


def shared_capacity(scenario: Scenario, population: Population) -> dict[Direction, SharedCapacity]:
    """Say what devices share in each direction; nothing for a direction in which they share nothing."""
    server, cells = scenario.server, scenario.fleet.cells or CellsSection()
    num_cells = 0 if population.cell is None else int(population.cell.max()) + 1
    found: dict[Direction, SharedCapacity] = {}
    limits: tuple[tuple[Direction, float | None, float | None], ...] = (
        ("download", cells.down_mbps, server.egress_mbps),
        ("upload", cells.up_mbps, server.ingress_mbps),
    )
    for direction, each, common in limits:
        if each is not None or common is not None:
            found[direction] = SharedCapacity(
                () if each is None else (StepTrace.constant(each * MBIT),) * num_cells,
                None if common is None else StepTrace.constant(common * MBIT),
            )
    return found
