"""How is ``energy.toml`` read? Watts of classes that train and of radios that move data, beyond idling."""

import hashlib
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedsim.errors import TraceError
from fedsim.world.calibration import RadioPower
from fedsim.world.energy import EnergyTable
from fedsim.world.formats.records import Origin

_CLASS_KEYS = ("compute_w",)
_NETWORK_KEYS = ("base_w", "down_w_per_mbps", "up_w_per_mbps")
_TEXTS = ("source", "licence")
_MOST_W = 1e6


def read_energy(path: Path | str) -> EnergyTable:
    """Read energy coefficients: ``[class."NAME"]`` and ``[network."NAME"]``, ``source`` and ``licence``.

    Raises:
        TraceError: If it is not TOML, a key is unknown or missing, or a number is not a power.
    """
    try:
        data = Path(path).read_bytes()
        content = tomllib.loads(data.decode("utf-8"))
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror}; fix the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TraceError(f"{path}: expected TOML, got: {error}; fix the file") from None
    _check_keys(path, "", content, ("class", "network", *_TEXTS), needed=("class", "network"))
    for key in _TEXTS:
        if not isinstance(content.get(key, ""), str):
            raise TraceError(f"{path}: {key}: expected a text, got {content[key]!r}; put quotes around it")
    classes = _sections(path, content, "class", _CLASS_KEYS)
    networks = _sections(path, content, "network", _NETWORK_KEYS)
    return EnergyTable(
        compute_w={name: values["compute_w"] for name, values in classes.items()},
        radios={
            name: RadioPower(*(values[key] for key in _NETWORK_KEYS)) for name, values in networks.items()
        },
        origin=Origin(
            str(path), hashlib.sha256(data).hexdigest(), (), content.get("source"), content.get("licence")
        ),
    )


def _sections(
    path: Path | str, content: Mapping[str, Any], kind: str, keys: tuple[str, ...]
) -> dict[str, dict[str, float]]:
    found = content[kind]
    if not isinstance(found, dict) or not found:
        raise TraceError(f'{path}: {kind}: expected sections such as [{kind}."NAME"]; write at least one')
    return {name: _numbers(path, f'{kind}."{name}"', section, keys) for name, section in found.items()}


def _numbers(path: Path | str, where: str, section: Any, keys: tuple[str, ...]) -> dict[str, float]:
    if not isinstance(section, dict):
        raise TraceError(f"{path}: {where}: expected a section with {', '.join(keys)}; write [{where}]")
    _check_keys(path, f"{where}.", section, keys, needed=keys)
    for key in keys:
        value = section[key]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (is_number and math.isfinite(value) and 0 <= value <= _MOST_W):
            raise TraceError(f"{path}: {where}.{key}: expected watts >= 0, got {value!r}; fix the value")
    return {key: float(section[key]) for key in keys}


def _check_keys(
    path: Path | str, where: str, found: Mapping[str, Any], known: tuple[str, ...], needed: tuple[str, ...]
) -> None:
    for key in found:
        if key not in known:
            raise TraceError(f"{path}: {where}{key}: unknown key; expected {', '.join(known)}")
    for key in needed:
        if key not in found:
            raise TraceError(f"{path}: {where}{key}: expected, found none; add it")
