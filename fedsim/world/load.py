"""How is a fleet loaded from its files?"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fedsim.seeds import Seeds
from fedsim.world.assemble import AvailabilityPolicy, FleetOptions, assemble_population
from fedsim.world.eligibility import Eligibility, with_eligibility
from fedsim.world.formats.availability import read_availability
from fedsim.world.formats.bandwidth import read_bandwidth
from fedsim.world.formats.devices import read_devices
from fedsim.world.formats.records import GapPolicy, Mode
from fedsim.world.formats.state import read_state
from fedsim.world.population import Population
from fedsim.world.resample import Growth, grow_population


def load_population(
    devices: Path | str,
    bandwidth: Path | str,
    availability: Path | str | None = None,
    state: Path | str | None = None,
    *,
    seed: int = 0,
    start_s: float = 0.0,
    limit: int | None = None,
    availability_policy: AvailabilityPolicy = "error",
    loop: bool | None = None,
    spread_days: bool = False,
    bandwidth_scale: float = 1.0,
    latency_s: float = 0.05,
    network_family: str = "wifi",
    flops_per_token: float | None = None,
    class_defaults: Mapping[str, tuple[float | None, float | None]] | None = None,
    mode: Mode = "normal",
    merge_gap_s: float | None = None,
    gap_policy: GapPolicy | None = None,
    eligibility: Eligibility | None = None,
    growth: Growth | None = None,
    deal_availability: bool = False,
    deal_bandwidth: bool = False,
) -> Population:
    """Read, check and assemble a fleet.

    Args:
        devices: One row per device.
        bandwidth: Library of bandwidth traces.
        availability: Online intervals; None only with the policy ``always``.
        state: Events of memory and speed, if there are any.
        seed: See `FleetOptions`, as for all arguments down to `class_defaults`.
        start_s: Where in the traces second 0 lies.
        limit: Only so many devices, the first of the file.
        availability_policy: What a device without rows is.
        loop: Whether availability begins again.
        spread_days: Shift each device by whole days.
        bandwidth_scale: Multiplies every rate.
        latency_s: One way, where neither trace nor class says.
        network_family: Down/up ratio where no uplink was measured.
        flops_per_token: Turns ``train_tokens_per_s`` into FLOP per second.
        class_defaults: Bytes of memory and FLOP per second by class.
        mode: ``lenient`` drops rows that cannot be read, ``strict`` refuses rows that would be mended.
        merge_gap_s: Shorter absences are closed; default: 60 for measured traces, 0 for generated ones.
        gap_policy: What a hole in a bandwidth trace means; default: the sidecar, else ``hold``.
        eligibility: When devices that are there may take part.
        growth: Draw a larger fleet from the devices of the file.
        deal_availability: Devices follow the rows of the availability file in a drawn order, not by name.
        deal_bandwidth: Devices draw their traces from the library, whatever their rows say.

    Raises:
        TraceError: For the first thing that is wrong, with file, line and the way out.
    """
    rules = eligibility or Eligibility()
    options = FleetOptions(
        seed=seed,
        start_s=start_s,
        limit=limit,
        availability_policy=availability_policy,
        loop=loop,
        spread_days=spread_days,
        bandwidth_scale=bandwidth_scale,
        network_family=network_family,
        latency_s=latency_s,
        flops_per_token=flops_per_token,
        class_defaults=class_defaults or {},
    )
    fleet = read_devices(devices, mode=mode)
    present = None
    if availability is not None:
        present = read_availability(
            availability,
            mode=mode,
            merge_gap_s=merge_gap_s,
            unmetered_only=rules.unmetered,
            charging_only=rules.charging,
        )
    library = read_bandwidth(bandwidth, mode=mode, gap_policy=gap_policy)
    events = None if state is None else read_state(state, mode=mode)
    seeds = Seeds(seed)
    if deal_availability and present is not None:
        fleet = replace(fleet, availability_ids=_dealt(present.ids, len(fleet.ids), seeds))
    if deal_bandwidth:
        fleet = replace(fleet, bandwidth_ids=("",) * len(fleet.ids))
    population = assemble_population(fleet, present, library, events, options)
    told = frozenset[str]() if present is None else present.tells
    population = with_eligibility(population, rules.without(told))
    if growth is None:
        return population
    tz_s = fleet.numbers["tz_offset_s"][: population.num_devices]
    known = np.where(np.isnan(tz_s), 0.0 if present is None else present.tz_offset_s, tz_s)
    return grow_population(population, known, growth, seeds)


def _dealt(names: Sequence[str], num_devices: int, seeds: Seeds) -> tuple[str, ...]:
    """Deal names out in a drawn order, again from the first when all are dealt."""
    order = seeds.generator("deal").permutation(len(names))
    return tuple(names[order[k % len(names)]] for k in range(num_devices))
