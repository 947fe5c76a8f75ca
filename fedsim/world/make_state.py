"""What happens on generated devices? Events of memory, speed, charger, battery and network, as a CSV."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fedsim.seeds import Seeds
from fedsim.world.calibration import Presence
from fedsim.world.recipe import ClassRecipe, Recipe
from fedsim.world.synth import DAY_S, Stays, synth_battery, synth_disturbances, synth_presence


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """The fleet's rows: identifier, class and zone of each device, in the order of the file."""

    ids: list[str]
    classes: list[str]
    tz_s: list[int]


def state_csv(recipe: Recipe, fleet: Drawn, memory: Mapping[str, float], days: int, seeds: Seeds) -> str:
    """Write the events of a fleet, times in UTC seconds.

    Args:
        recipe: What happens to which class.
        fleet: Its devices.
        memory: Usable memory of each device, MiB.
        days: Length after which events begin again.
        seeds: Root of the draws.
    """
    lines = ["device_id,time_s,key,value"]
    charging = _habit(recipe, fleet, "charging", days, seeds)
    on_wifi = _habit(recipe, fleet, "on_wifi", days, seeds)
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
            lines += _events(name, key, times, values)
        if made.battery_use is not None:
            starts, ends = _in_utc(*charging[name], tz_s, days)
            lines += _switching(name, "charging", starts, ends, ("0", "1"), days)
            times, levels = synth_battery(made.battery_use, starts, ends, days * DAY_S)
            lines += _events(name, "battery_pct", times, [f"{level:.0f}" for level in levels.tolist()])
        if made.on_wifi is not None:
            starts, ends = _in_utc(*on_wifi[name], tz_s, days)
            lines += _switching(name, "network", starts, ends, ("cell", "wifi"), days)
    return "\n".join(lines) + "\n"


_Intervals = tuple[np.ndarray, np.ndarray]


def _habit(recipe: Recipe, fleet: Drawn, purpose: str, days: int, seeds: Seeds) -> dict[str, _Intervals]:
    """Device -> when it is on the charger, or on Wi-Fi, in its own local time."""
    found: dict[str, _Intervals] = {}
    for kind, made in recipe.classes.items():
        presence = _presence(made, purpose)
        members = [name for name, own in zip(fleet.ids, fleet.classes, strict=True) if own == kind]
        if presence is None or not members:
            continue
        stays = synth_presence(len(members), days, presence, seeds.generator(purpose, kind))
        found |= dict(zip(members, _by_device(stays, len(members)), strict=True))
    return found


def _presence(made: ClassRecipe, purpose: str) -> Presence | None:
    if purpose == "on_wifi":
        return made.on_wifi
    return None if made.battery_use is None else made.battery_use.charging


def _by_device(stays: Stays, num_devices: int) -> list[_Intervals]:
    places = np.searchsorted(stays.device, np.arange(num_devices + 1)).tolist()
    parts = [slice(low, high) for low, high in pairwise(places)]
    return [(stays.starts_s[part], stays.ends_s[part]) for part in parts]


def _in_utc(starts_s: np.ndarray, ends_s: np.ndarray, tz_s: int, days: int) -> _Intervals:
    """Move intervals from local time to UTC; one that runs over the end of the period is split."""
    period_s = days * DAY_S
    starts = np.mod(starts_s - tz_s, period_s)
    ends = starts + (ends_s - starts_s)
    over = ends > period_s
    starts = np.concatenate((starts, np.zeros(int(over.sum()), dtype=starts.dtype)))
    ends = np.concatenate((np.minimum(ends, period_s), ends[over] - period_s))
    order = np.argsort(starts, kind="stable")
    return starts[order], ends[order]


def _switching(
    name: str, key: str, starts_s: np.ndarray, ends_s: np.ndarray, words: tuple[str, str], days: int
) -> list[str]:
    """Events of something that is on during intervals, from second 0 on."""
    times = np.unique(np.concatenate(([0], starts_s, ends_s[ends_s < days * DAY_S])))
    begun = np.searchsorted(starts_s, times, side="right") > np.searchsorted(ends_s, times, side="right")
    real = np.append(True, begun[1:] != begun[:-1])
    return _events(name, key, times[real], [words[int(now)] for now in begun[real]])


def _events(name: str, key: str, times_s: np.ndarray, values: list[str]) -> list[str]:
    return [
        f"{name},{time_s:.0f},{key},{value}" for time_s, value in zip(times_s.tolist(), values, strict=True)
    ]
