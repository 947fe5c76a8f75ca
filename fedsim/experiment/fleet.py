"""Which fleet does a scenario name? Reads its traces; loads no tensor library, so that a check is quick."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from fedsim.errors import TraceError
from fedsim.experiment.scenario import Scenario
from fedsim.experiment.sections import FleetSection
from fedsim.seeds import Seeds, mix
from fedsim.world.eligibility import Eligibility
from fedsim.world.energy import EnergyTable, fleet_power
from fedsim.world.formats.availability import read_availability
from fedsim.world.formats.energy import read_energy
from fedsim.world.load import load_population
from fedsim.world.make import synth_fleet
from fedsim.world.perturb import perturbed
from fedsim.world.population import Population
from fedsim.world.resample import Growth, Pairing

if TYPE_CHECKING:
    from fedsim.method.server import ServerConfig
    from fedsim.sim.fleet import Reporter

_KEYS = ("devices", "bandwidth", "availability", "state", "energy")
_TEMPLATES = 1000
_DAYS = 7
MOST_ASKED = 1000
"""Of a larger fleet, so many devices stand for all when one rank is sought for everybody."""


@dataclass(frozen=True, slots=True)
class _Files:
    """Where the four tables and the energy coefficients lie; None for those that are not there."""

    devices: Path
    bandwidth: Path
    availability: Path | None
    state: Path | None
    energy: Path | None


def build_population(scenario: Scenario) -> Population:
    """Read and check the fleet of a scenario.

    Args:
        scenario: As loaded.

    Raises:
        InputError: If a file is missing, or a trace or a recipe is wrong.
    """
    fleet = scenario.fleet
    for key in _KEYS:
        path = getattr(fleet, key)
        if path is not None and not path.is_file():
            raise scenario.error(f"fleet.{key}", f"no such file: {path}")
    if fleet.recipe is None:
        if fleet.devices is None or fleet.bandwidth is None:
            raise scenario.error("fleet.devices", "required, or fleet.recipe")
        files = _Files(fleet.devices, fleet.bandwidth, fleet.availability, fleet.state, fleet.energy)
        return _in_cells(scenario, _noted(scenario, _load(scenario, files)))
    with TemporaryDirectory(prefix="fedsim-fleet-") as folder:
        shown = f"recipe {Path(fleet.recipe).name}: "
        try:
            files = _made(fleet, scenario.seed, Path(folder))
            population = _renamed(_load(scenario, files), f"{folder}/", shown)
            return _in_cells(scenario, _noted(scenario, population))
        except TraceError as error:
            raise TraceError(str(error).replace(f"{folder}/", shown)) from None


def _noted(scenario: Scenario, population: Population) -> Population:
    """Say so where a round can never be full."""
    cohort, devices = scenario.server.cohort or 1, population.num_devices
    if cohort <= devices:
        return population
    note = f"server.cohort: {cohort} is more than the {devices} devices there are, so no round is ever full"
    return replace(population, notes=(*population.notes, note))


def _in_cells(scenario: Scenario, population: Population) -> Population:
    """Deal the devices to cells where the scenario counts them, and check that there are any."""
    cells = scenario.fleet.cells
    if cells is None:
        return population
    if cells.count is None:
        if population.cell is None:
            raise scenario.error("fleet.cells.count", "required: the device file has no column cell_id")
        return population
    if population.cell is not None:
        raise scenario.error("fleet.cells.count", "the device file names cells by cell_id; leave count out")
    drawn = mix(Seeds(scenario.seed).seed("cells"), np.arange(population.num_devices))
    return replace(population, cell=(drawn % np.uint64(cells.count)).astype(np.int32))


def _load(scenario: Scenario, files: _Files) -> Population:
    fleet = scenario.fleet
    only_devices = fleet.recipe is not None and (fleet.devices is None) != (fleet.availability is None)
    change = fleet.perturb
    population = load_population(
        devices=files.devices,
        bandwidth=files.bandwidth,
        availability=files.availability,
        state=files.state,
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
        eligibility=Eligibility(**fleet.eligibility.model_dump()),
        growth=_growth(fleet),
        deal_availability=only_devices,
        deal_bandwidth=fleet.recipe is not None and fleet.devices is None and fleet.bandwidth is not None,
    )
    population = perturbed(
        population,
        compute=change.compute,
        shift_s=change.availability_shift_s,
        resample=change.resample,
        seed=scenario.seed,
    )
    return population if files.energy is None else _powered(population, read_energy(files.energy))


def _powered(population: Population, table: EnergyTable) -> Population:
    own = population.connections
    names = [entry.trace_id for entry in own.library]
    power = fleet_power(table, population.class_names, names, set(own.trace.tolist()))
    return replace(population, power=power, origins=(*population.origins, table.origin))


def _growth(fleet: FleetSection) -> Growth | None:
    if fleet.population is None:
        return None
    from fedsim.experiment.recipe_source import hours_from_utc  # noqa: PLC0415 - only few fleets need it

    return Growth(
        size=fleet.population,
        shares=fleet.shares,
        pairing=Pairing(**fleet.pairing.model_dump()),
        zones_h={hours_from_utc(text): share for text, share in fleet.time_zones.items()},
        scale_ln_sd=fleet.bandwidth_spread,
    )


def _made(fleet: FleetSection, seed: int, folder: Path) -> _Files:
    """Let the recipe make what no file gives."""
    from fedsim.experiment.recipe_source import load_recipe  # noqa: PLC0415 - only few fleets need it

    made = synth_fleet(
        load_recipe(fleet.recipe or ""), _num_templates(fleet), fleet.recipe_days or _DAYS, seed
    )
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    whole = fleet.devices is None and fleet.bandwidth is None  # else the names are not the recipe's
    own_energy = folder / "energy.toml" if whole and "energy.toml" in made else None
    own_state = fleet.state or _own(made, folder, "state") if fleet.devices is None else fleet.state
    return _Files(
        devices=fleet.devices or folder / "devices.csv",
        bandwidth=fleet.bandwidth or folder / "bandwidth.csv",
        availability=fleet.availability or folder / "availability.csv",
        state=own_state,
        energy=fleet.energy or own_energy,
    )


def _own(made: Mapping[str, str], folder: Path, kind: str) -> Path | None:
    name = f"{kind}.csv"
    return folder / name if name in made else None


def _num_templates(fleet: FleetSection) -> int:
    """As many as there are devices, rows to deal out, or the limit, whichever fits."""
    wanted = fleet.templates or _TEMPLATES
    if fleet.availability is not None and fleet.devices is None and fleet.templates is None:
        wanted = max(wanted, len(read_availability(fleet.availability).ids))
    return min(wanted, fleet.population or wanted)


def _renamed(population: Population, folder: str, shown: str) -> Population:
    """Name generated tables by their recipe: the folder that they went through says nothing."""
    origins = tuple(
        replace(origin, path=origin.path.replace(folder, shown), notes=()) for origin in population.origins
    )
    notes = tuple(note.replace(folder, shown) for note in population.notes)
    return replace(population, origins=origins, notes=notes)


def bound_to_fleet(config: "ServerConfig", reporter: "Reporter") -> "ServerConfig":
    """Let a method that has one rank for everybody look at the whole fleet once, at the start of the run.

    Args:
        config: With the method as it was built.
        reporter: Turns devices into what they would tell.

    Returns:
        The configuration with the bound method; unchanged for methods that need no such look.
    """
    from fedsim.method.estimate import LinkHistory, budget  # noqa: PLC0415 - a check asks nobody

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
