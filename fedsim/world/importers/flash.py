"""FLASH: state logs of smartphones, and the Wi-Fi speeds of volunteers.

Source:
    Yang et al., "Characterizing Impacts of Heterogeneity in Federated Learning upon Large-Scale Smartphone
    Data", WWW 2021, arXiv:2006.06983.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from fedsim.seeds import Seeds
from fedsim.world.importers.jsonstream import read_entries
from fedsim.world.importers.place import Place, Range
from fedsim.world.importers.rows import (
    Choices,
    Count,
    DeviceRow,
    Inputs,
    Items,
    OnlineRow,
    RateRow,
    StateRow,
)

DEVICE_CLASS = "phone-mid"
_DAY_S = 86_400.0
_LOGGED_MAX_S = 366 * _DAY_S
_TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
_DRAWN_S = _DAY_S
_BIN_S = 60.0
_KIBIBYTE_MBIT = 8 * 1024 / 1e6
_SPEED = Range("KB/s", 0.01, 1e6, "are these bytes per second?")
_SPREAD = Range("KB/s", 0, 1e6, "are these bytes per second?")
_SPEEDS = ("down_u", "down_sigma", "up_u", "up_sigma")
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]+)?)%")
_NETWORKS = {
    "wifi": "wifi",
    "2g": "cell",
    "3g": "cell",
    "4g": "cell",
    "5g": "cell",
    "unknown": "none",
    "phone_off": "none",
}
_CHARGING = {"battery_charged_on": 1, "battery_charged_off": 0}
_LOCKED = {"screen_lock": True, "screen_unlock": False}
_WITHOUT_EFFECT = frozenset(("screen_on", "screen_off", "battery_low", "battery_okay", "phone_on"))


def read(inputs: Inputs, choices: Choices) -> Items:
    """Yield stays, events and devices from state logs, and drawn rates from the speed distribution.

    A phone is online while it is locked and connected; each stay says on which network, and whether charging.
    FLASH's own "ready" (locked, Wi-Fi, charging) is what a scenario with both eligibility rules sees.

    Args:
        inputs: State logs, speed distributions, or both.
        choices: ``bin_s`` is the time between two drawn rates (60 s), ``seed`` that of the draws.

    Raises:
        TraceError: For the first thing that is wrong, with its line.
    """
    for source in inputs:
        for place, key, entry in read_entries(source.path, "{"):
            if isinstance(entry, dict) and "messages" in entry:
                yield from _phone(place, _identifier(place, str(key)), entry["messages"])
            elif isinstance(entry, dict) and all(name in entry for name in _SPEEDS):
                yield from _volunteer(place, _identifier(place, str(key)), entry, choices)
            else:
                expected = f"messages, or {', '.join(_SPEEDS)}"
                found = ", ".join(map(str, entry)) if isinstance(entry, dict) else type(entry).__name__
                raise place.wrong(str(key), expected, found, "check the format")


def _identifier(place: Place, key: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,50}", key):
        raise place.wrong("id", "an identifier of letters, digits, . _ -", key, "check the format")
    return f"flash-{key}"


@dataclass(frozen=True, slots=True)
class _Phone:
    """What the log has said so far; as its authors do, a phone starts unlocked, offline and on battery."""

    locked: bool = False
    network: str = "none"
    charging: int = 0

    @property
    def online(self) -> bool:
        return self.locked and self.network != "none"


def _phone(place: Place, device_id: str, messages: object) -> Items:
    log = sorted(_messages(place, device_id, messages), key=lambda message: message[0])
    if not log:
        yield Count("phones without any message dropped")
        return
    first = log[0][0]
    midnight = first.replace(hour=0, minute=0, second=0)
    times = [(when - midnight).total_seconds() for when, _ in log]
    if times[-1] > _LOGGED_MAX_S:
        found = f"{first} to {log[-1][0]}"
        raise place.wrong(device_id, "a log of at most a year", found, "check the dates")
    yield from _replay(device_id, times, [state for _, state in log])
    period_s = (times[-1] // _DAY_S + 1) * _DAY_S
    yield DeviceRow(device_id, DEVICE_CLASS, availability_period_s=period_s)
    yield Count(f"devices get the class {DEVICE_CLASS}, since the trace only names their model")


def _messages(place: Place, device_id: str, messages: object) -> Iterator[tuple[datetime, str]]:
    if not isinstance(messages, str):
        raise place.wrong(f"{device_id}.messages", "a text", messages, "check the format")
    for number, line in enumerate(messages.split("\n"), start=1):
        if not line.strip():
            continue
        when, tab, state = line.strip().partition("\t")
        column = f"{device_id}.messages[{number}]"
        try:
            instant = datetime.strptime(when.strip(), _TIME_FORMAT)  # noqa: DTZ007 - the log names no zone
        except ValueError:
            expected = "YYYY-MM-DD HH:MM:SS, a tab and a state"
            raise place.wrong(column, expected, line, "check the download") from None
        if not tab:
            raise place.wrong(column, "a tab and a state after the time", line, "check the download")
        yield instant, state.strip().lower()


def _replay(device_id: str, times: list[float], states: list[str]) -> Items:
    phone, since_s, stays = _Phone(), 0.0, 0
    for time_s, state in zip(times, states, strict=True):
        after = _after(phone, state)
        if after != phone or not _is_known(state):
            yield from _events(device_id, time_s, phone, after, known=_is_known(state))
        if percent := _PERCENT.fullmatch(state):
            yield from _battery(device_id, time_s, float(percent[1]))
        if phone.online and after != phone:
            stays += time_s > since_s
            yield from _stay(device_id, since_s, time_s, phone)
        since_s = time_s if after != phone else since_s
        phone = after
    if phone.online and times[-1] > since_s:
        stays += 1
        yield from _stay(device_id, since_s, times[-1], phone)
    if not stays:
        yield Count("devices that are never online, kept by a row of zero length")
        yield OnlineRow(device_id, 0.0, 0.0, "none", 0)


def _after(phone: _Phone, state: str) -> _Phone:
    if state in _LOCKED:
        return replace(phone, locked=_LOCKED[state])
    if state in _NETWORKS:
        return replace(phone, network=_NETWORKS[state])
    return replace(phone, charging=_CHARGING.get(state, phone.charging))


def _is_known(state: str) -> bool:
    known = (_LOCKED, _NETWORKS, _CHARGING, _WITHOUT_EFFECT)
    return any(state in states for states in known) or _PERCENT.fullmatch(state) is not None


def _events(device_id: str, time_s: float, before: _Phone, after: _Phone, *, known: bool) -> Items:
    if not known:
        yield Count("messages with an unknown state ignored")
    if after.network != before.network:
        yield StateRow(device_id, time_s, "network", after.network)
    if after.charging != before.charging:
        yield StateRow(device_id, time_s, "charging", after.charging)


def _battery(device_id: str, time_s: float, percent: float) -> Items:
    if percent > 100:
        yield Count("battery levels above 100 % dropped")
    else:
        yield StateRow(device_id, time_s, "battery_pct", percent)


def _stay(device_id: str, start_s: float, end_s: float, phone: _Phone) -> Items:
    if end_s > start_s:
        yield OnlineRow(device_id, start_s, end_s, phone.network, phone.charging)
    else:
        yield Count("stays of zero length dropped")


def _volunteer(place: Place, trace_id: str, entry: dict[str, Any], choices: Choices) -> Items:
    """Draw a day of rates as FLASH draws one per transfer: normal, again and again until it is above 0."""
    bin_s = choices.bin_s or _BIN_S
    rng = Seeds(choices.seed or 0).generator("flash", trace_id)
    parts = [
        place.within(f"{trace_id}.{name}", entry[name], _SPREAD if "sigma" in name else _SPEED)
        for name in _SPEEDS
    ]
    number = int(_DRAWN_S // bin_s)
    for k in range(number):
        down, up = (_positive(rng, mean, sigma) * _KIBIBYTE_MBIT for mean, sigma in (parts[:2], parts[2:]))
        yield RateRow(trace_id, k * bin_s, down, up)
    yield Count(f"rates drawn from normal distributions, one each {bin_s:g} s", number)


def _positive(rng: Any, mean: float, sigma: float) -> float:
    while True:
        drawn = float(rng.normal(mean, sigma))
        if drawn > 0:
            return drawn
