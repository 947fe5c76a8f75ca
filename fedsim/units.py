"""How are quantities written in a scenario? "30 MB", "2 Mbit/s", "90 s"; plain numbers are base units.

Only the edge of the program reads these; everything inside carries its unit in its name.
"""

import re
from typing import Literal

Quantity = Literal["bytes", "bits per second", "seconds", "FLOP/s"]

_NUMBER = re.compile(r"^\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z/]*)\s*$")
_DECIMAL = {"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}


def _scaled(unit: str, *, binary: bool = False) -> dict[str, float]:
    prefixes = {**_DECIMAL, **(_BINARY if binary else {})}
    return {unit: 1.0, **{prefix + unit: factor for prefix, factor in prefixes.items()}}


_UNITS: dict[Quantity, dict[str, float]] = {
    "bytes": _scaled("B", binary=True),
    "bits per second": {**_scaled("bit/s"), **_scaled("bps")},
    "seconds": {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0},
    "FLOP/s": {**_scaled("FLOP/s"), **_scaled("FLOPS")},
}
EXPECTED: dict[Quantity, str] = {
    "bytes": 'a size such as "30 MB" or "2 GiB"',
    "bits per second": 'a rate such as "2 Mbit/s"',
    "seconds": 'a duration such as "90 s" or "15 min"',
    "FLOP/s": 'a compute rate such as "100 GFLOP/s"',
}


def parse_quantity(text: str | float, quantity: Quantity) -> float:
    """Read a quantity in base units.

    Args:
        text: A plain number (base units) or a number with a unit.
        quantity: What is measured.

    Raises:
        ValueError: If the text is not a number with a unit of this quantity; the message gives an example.
    """
    if isinstance(text, bool):
        raise ValueError(f"expected {EXPECTED[quantity]}, got {str(text).lower()}")  # noqa: TRY004 - one kind
    if isinstance(text, int | float):
        return float(text)
    match = _NUMBER.match(text)
    units = _UNITS[quantity]
    if match is None or (match[2] and match[2] not in units):
        raise ValueError(f'expected {EXPECTED[quantity]}, got "{text}"')
    return float(match[1]) * (units[match[2]] if match[2] else 1.0)


def format_bytes(size_bytes: float) -> str:
    """Write a number of bytes for people, decimal prefixes."""
    for prefix, factor in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(size_bytes) >= factor:
            return f"{size_bytes / factor:.1f} {prefix}B"
    return f"{size_bytes:.0f} B"


def format_joules(energy_j: float) -> str:
    """Write an energy for people, as batteries state it."""
    watt_hours = energy_j / 3600.0
    return f"{watt_hours / 1e3:.2f} kWh" if watt_hours >= 1e3 else f"{watt_hours:.2f} Wh"


def format_seconds(duration_s: float) -> str:
    """Write a duration for people, for instance ``1d 03:04:05``."""
    days, rest = divmod(round(duration_s), 86400)
    hours, rest = divmod(rest, 3600)
    minutes, seconds = divmod(rest, 60)
    clock = f"{hours:02d}:{minutes:02d}:{seconds:02d}"
    return f"{days}d {clock}" if days else clock
