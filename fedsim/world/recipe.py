"""What does a generated fleet consist of? A recipe of classes and networks, and the four files made of it.

Shares of classes, networks and zones are judgement: memory, speed and bandwidth are strongly skewed,
and a cohort of ten can be found at any hour.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from fedsim.errors import TraceError
from fedsim.seeds import Seeds
from fedsim.world.calibration import NETWORKS, PRESENCE
from fedsim.world.synth import DAY_S, Disturbance, Stays, synth_disturbances, synth_presence, synth_rates

_APPS = Disturbance(per_day=9.0, median_s=900.0, ln_sd=1.0, share=(0.12, 0.45))
_HEAT = Disturbance(per_day=3.0, median_s=1200.0, ln_sd=0.6, share=(0.10, 0.50))
_JOBS = Disturbance(per_day=4.0, median_s=1800.0, ln_sd=1.0, share=(0.15, 0.60))


@dataclass(frozen=True, slots=True)
class ClassRecipe:
    """One class of a generated fleet.

    Args:
        share: Of the fleet.
        memory_mib: Usable memory of its variants, equally likely.
        gflops: Median training speed.
        presence: Name in `PRESENCE`.
        networks: Family -> share.
        battery_wh: Median, None on mains.
        memory_use: What takes memory away, None if nothing does.
        slowing: What takes speed away, None if nothing does.
    """

    share: float
    memory_mib: tuple[int, ...]
    gflops: float
    presence: str
    networks: Mapping[str, float]
    battery_wh: float | None = None
    memory_use: Disturbance | None = None
    slowing: Disturbance | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """A generated fleet: classes by name, hours from UTC with their shares, traces per family."""

    classes: Mapping[str, ClassRecipe]
    zones_h: Mapping[float, float]
    library: Mapping[str, int]


_PHONE_NETWORKS = {
    "wifi": 0.52, "wifi-slow": 0.16, "lte": 0.10, "lte-good": 0.05, "lte-poor": 0.09, "3g": 0.06, "5g": 0.02,
}  # fmt: skip
_BOARD_NETWORKS = {"wifi": 0.40, "wifi-slow": 0.25, "ethernet": 0.20, "lte-poor": 0.08, "3g": 0.07}
_EDGE_NETWORKS = {"ethernet": 0.45, "lte": 0.25, "5g": 0.15, "5g-mmwave": 0.05, "lte-poor": 0.10}
_CABLE = {"ethernet": 1.0}
_HOME_NETWORKS = {"wifi": 0.70, "wifi-slow": 0.15, "ethernet": 0.15}

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "skewed_edge": Recipe(
            classes={
                "phone-low": ClassRecipe(
                    0.20, (2600, 3200, 3700), 20, "phone", _PHONE_NETWORKS, 15.0, _APPS, _HEAT
                ),
                "phone-mid": ClassRecipe(
                    0.28, (4200, 4800, 5600), 60, "phone", _PHONE_NETWORKS, 15.4, _APPS, _HEAT
                ),
                "phone-high": ClassRecipe(
                    0.18, (5600, 6800, 8000), 100, "phone", _PHONE_NETWORKS, 18.0, _APPS, _HEAT
                ),
                "pi-5": ClassRecipe(
                    0.11, (6200, 6600, 13_500), 45, "board", _BOARD_NETWORKS, None, None, _HEAT
                ),
                "jetson-orin-nano": ClassRecipe(
                    0.06, (5400, 6000), 1_000, "board", _EDGE_NETWORKS, None, _JOBS, None
                ),
                "laptop": ClassRecipe(
                    0.12, (5200, 9000, 16_000), 1_500, "laptop", _HOME_NETWORKS, 55.0, _APPS, _HEAT
                ),
                "workstation": ClassRecipe(
                    0.05, (16_000, 24_000, 48_000), 18_000, "workstation", _CABLE, None, _JOBS
                ),
            },
            zones_h={-8: 0.15, -5: 0.20, 0: 0.10, 1: 0.25, 5.5: 0.15, 8: 0.15},
            library={
                "wifi": 15, "wifi-slow": 9, "ethernet": 5, "lte": 8, "lte-good": 5, "lte-poor": 8, "3g": 6,
                "5g": 3, "5g-mmwave": 1,
            },
        )
    }
)  # fmt: skip


_DEVICE_COLUMNS = (
    "device_id",
    "device_class",
    "mem_available_mib",
    "compute_gflops",
    "battery_wh",
    "availability_id",
    "availability_period_s",
    "bandwidth_id",
    "bandwidth_offset_s",
    "bandwidth_scale",
    "tz_offset_s",
)


@dataclass(frozen=True, slots=True, eq=False)
class _Drawn:
    """The fleet's rows: identifier, class and zone of each device, in the order of the file."""

    ids: list[str]
    classes: list[str]
    tz_s: list[int]


def synth_fleet(recipe_name: str, num_devices: int, days: int, seed: int) -> dict[str, str]:
    """Make the files of a generated fleet.

    Args:
        recipe_name: Key of `RECIPES`.
        num_devices: Size of the fleet.
        days: Length after which availability and state begin again.
        seed: Root of all draws.

    Returns:
        File name -> text: four CSV files, their sidecars, and a README with origin and hashes.

    Raises:
        TraceError: If the recipe is unknown or a number is not positive.
    """
    recipe = RECIPES.get(recipe_name)
    if recipe is None:
        raise TraceError(f'--recipe: expected one of {", ".join(RECIPES)}, got "{recipe_name}"')
    if num_devices < 1 or days < 1:
        raise TraceError(f"expected at least one device and one day, got {num_devices} and {days}")
    seeds = Seeds(seed)
    fleet = _draw(recipe, num_devices, seeds)
    origin = f"generated by fedsim traces synth --recipe {recipe_name}"
    files = {
        "devices.csv": _devices_csv(recipe, fleet, seeds),
        "availability.csv": _availability_csv(recipe, fleet, days, seeds),
        "bandwidth.csv": _bandwidth_csv(recipe, seeds),
        "state.csv": _state_csv(recipe, fleet, days, seeds),
    }
    for name in ("availability.csv", "state.csv"):
        files[f"{name}.toml"] = _sidecar(name.removesuffix(".csv"), origin, days)
    files["README.md"] = _readme(recipe_name, recipe, fleet, files, days=days, seed=seed)
    return files


def _draw(recipe: Recipe, num_devices: int, seeds: Seeds) -> _Drawn:
    """Deal classes by their shares, mix the order, draw zones."""
    names = list(recipe.classes)
    edges = np.cumsum([recipe.classes[name].share for name in names])
    place = (np.arange(num_devices) + 0.5) / num_devices * edges[-1]
    dealt = np.searchsorted(edges, place)
    rng = seeds.generator("fleet")
    rng.shuffle(dealt)
    counts = dict.fromkeys(names, 0)
    ids: list[str] = []
    for k in dealt.tolist():
        counts[names[k]] += 1
        ids.append(f"{names[k]}-{counts[names[k]]:03d}")
    zones = rng.choice(list(recipe.zones_h), num_devices, p=list(recipe.zones_h.values()))
    return _Drawn(ids, [names[k] for k in dealt.tolist()], [round(h * 3600) for h in zones.tolist()])


def _devices_csv(recipe: Recipe, fleet: _Drawn, seeds: Seeds) -> str:
    lines = [",".join(_DEVICE_COLUMNS)]
    for name, kind, tz_s in zip(fleet.ids, fleet.classes, fleet.tz_s, strict=True):
        made, rng = recipe.classes[kind], seeds.generator("device", name)
        memory = round(int(rng.choice(made.memory_mib)) * float(np.exp(0.06 * rng.standard_normal())))
        gflops = made.gflops * float(np.exp(0.35 * rng.standard_normal()))
        battery = "" if made.battery_wh is None else f"{made.battery_wh * rng.uniform(0.85, 1.15):.1f}"
        family = str(rng.choice(list(made.networks), p=list(made.networks.values())))
        trace = f"{family}-{int(rng.integers(recipe.library[family])) + 1:02d}"
        offset, scale = int(rng.integers(0, 900)), float(np.exp(0.15 * rng.standard_normal()))
        lines.append(f"{name},{kind},{memory},{gflops:.4g},{battery},,,{trace},{offset},{scale:.3f},{tz_s}")
    return "\n".join(lines) + "\n"


def _availability_csv(recipe: Recipe, fleet: _Drawn, days: int, seeds: Seeds) -> str:
    lines = ["device_id,start_s,end_s"]
    for kind, made in recipe.classes.items():
        members = [name for name, own in zip(fleet.ids, fleet.classes, strict=True) if own == kind]
        if not members:
            continue
        stays = synth_presence(
            len(members), days, PRESENCE[made.presence], seeds.generator("availability", kind)
        )
        stays = _everyone_comes(stays, len(members), days, seeds.generator("visit", kind))
        rows = zip(stays.device.tolist(), stays.starts_s.tolist(), stays.ends_s.tolist(), strict=True)
        lines += [f"{members[k]},{start},{end}" for k, start, end in rows]
    return "\n".join(lines) + "\n"


def _everyone_comes(stays: Stays, num: int, days: int, rng: np.random.Generator) -> Stays:
    """Give a device that never came one short night visit: one that never shows is not in a fleet."""
    absent = np.setdiff1d(np.arange(num), stays.device)
    starts = rng.integers(0, days, len(absent)) * DAY_S + rng.integers(0, 4 * 3600, len(absent))
    ends = starts + rng.integers(300, 1800, len(absent))
    device = np.concatenate((stays.device, absent))
    order = np.argsort(device, kind="stable")
    starts, ends = np.concatenate((stays.starts_s, starts)), np.concatenate((stays.ends_s, ends))
    return Stays(device[order], starts[order], ends[order])


def _bandwidth_csv(recipe: Recipe, seeds: Seeds) -> str:
    lines = ["trace_id,time_s,down_mbps,up_mbps,rtt_ms"]
    for name, num in recipe.library.items():
        step_s, num_steps = (2, 600) if name.startswith(("wifi", "ethernet")) else (1, 900)
        rates = synth_rates(NETWORKS[name], num, num_steps, step_s, seeds.generator("bandwidth", name))
        for k in range(num):
            rtt = f"{rates.rtt_ms[k]:.0f}"
            down, up = rates.down_mbps[:, k].tolist(), rates.up_mbps[:, k].tolist()
            for step, (d, u) in enumerate(zip(down, up, strict=True)):
                # The round trip is one number per trace; the first row holds it.
                lines.append(f"{name}-{k + 1:02d},{step * step_s},{d:.4g},{u:.4g},{rtt if step == 0 else ''}")
    return "\n".join(lines) + "\n"


def _state_csv(recipe: Recipe, fleet: _Drawn, days: int, seeds: Seeds) -> str:
    memory = dict(_memory_by_id(_devices_csv(recipe, fleet, seeds)))
    lines = ["device_id,time_s,key,value"]
    for name, kind, tz_s in zip(fleet.ids, fleet.classes, fleet.tz_s, strict=True):
        made = recipe.classes[kind]
        for key, disturbance, whole in (
            ("mem_available_mib", made.memory_use, memory[name]),
            ("compute_factor", made.slowing, None),
        ):
            if disturbance is None:
                continue
            times, left = synth_disturbances(disturbance, days, tz_s, seeds.generator(key, name))
            values = [f"{share:.2f}" if whole is None else f"{share * whole:.0f}" for share in left.tolist()]
            lines += [f"{name},{t},{key},{v}" for t, v in zip(times.tolist(), values, strict=True)]
    return "\n".join(lines) + "\n"


def _memory_by_id(devices_csv: str) -> list[tuple[str, float]]:
    rows = (line.split(",") for line in devices_csv.splitlines()[1:])
    return [(row[0], float(row[2])) for row in rows]


def _sidecar(kind: str, origin: str, days: int) -> str:
    return (
        f'kind = "{kind}"\nsource = "{origin}"\nlicence = "Apache-2.0"\n'
        f"period_s = {days * DAY_S}\nloop = true\n"
    )


def _readme(
    name: str, recipe: Recipe, fleet: _Drawn, files: Mapping[str, str], *, days: int, seed: int
) -> str:
    counts = "\n".join(f"| {kind} | {fleet.classes.count(kind)} |" for kind in recipe.classes)
    hashes = "\n".join(
        f"| `{file}` | {len(text.encode())} | `{hashlib.sha256(text.encode()).hexdigest()}` |"
        for file, text in files.items()
    )
    zones = ", ".join(f"{hours:+g}" for hours in recipe.zones_h)
    return f"""# {name}: a generated fleet

Nothing here was measured. The generators and the tables they follow are in `fedsim/world/synth.py`,
`fedsim/world/recipe.py` and `fedsim/world/calibration.py`; the same command makes the same bytes:

    fedsim traces synth --recipe {name} --devices {len(fleet.ids)} --days {days} --seed {seed} --out DIR

Licence: Apache-2.0, as the project.

| class | devices |
|---|---|
{counts}

- `availability.csv`: when a device may take part, in seconds of **its own local time**; `tz_offset_s`
  in `devices.csv` (UTC {zones} h) moves it. Begins again after {days} days.
  Phones take part while they charge.
- `bandwidth.csv`: a library of {sum(recipe.library.values())} traces of 15 to 20 minutes, Mbit/s down and
  up; each device follows one of them from its own offset, with its own scale. `0` is an outage.
- `state.csv`: memory that foreground apps take and speed that heat takes (judgement), in UTC seconds.
- `devices.csv`: usable memory, effective training speed (not data-sheet peak) and battery.

| file | bytes | sha256 |
|---|---|---|
{hashes}
"""
