"""How much energy does an assignment cost a device? Power beyond idling, over the time at work.

A radio draws a base power while it moves data, and more the faster it moves them; summed over a transfer
the slope becomes joules per bit, so only duration and bytes count, not the order of fast and slow seconds.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from fedsim.errors import TraceError
from fedsim.world.calibration import RadioPower
from fedsim.world.formats.records import Origin

ANY = "*"
_MBIT_PER_BYTE = 8e-6
_SEPARATORS = "-._:"


@dataclass(frozen=True, slots=True)
class EnergyTable:
    """Coefficients of a fleet.

    Args:
        compute_w: Device class -> power of training; ``*`` stands for every other class.
        radios: Network -> power of its radio; ``*`` stands for every other network.
        origin: Where they come from.
    """

    compute_w: Mapping[str, float]
    radios: Mapping[str, RadioPower]
    origin: Origin


@dataclass(frozen=True, slots=True)
class DevicePower:
    """Power of one device at work, beyond idling.

    Args:
        compute_w: While it trains.
        radio: While it moves data.
    """

    compute_w: float
    radio: RadioPower

    def download_j(self, duration_s: float, size_bytes: float) -> float:
        """Energy of receiving so many bytes in so much time."""
        return self.radio.base_w * duration_s + self.radio.down_w_per_mbps * _MBIT_PER_BYTE * size_bytes

    def upload_j(self, duration_s: float, size_bytes: float) -> float:
        """Energy of sending so many bytes in so much time."""
        return self.radio.base_w * duration_s + self.radio.up_w_per_mbps * _MBIT_PER_BYTE * size_bytes

    def train_j(self, duration_s: float) -> float:
        """Energy of training for so long."""
        return self.compute_w * duration_s


@dataclass(frozen=True, slots=True)
class FleetPower:
    """Power by class and by trace of the library, in their order."""

    compute_w: tuple[float, ...]
    radios: tuple[RadioPower, ...]

    def of(self, class_index: int, trace: int) -> DevicePower:
        """Power of a device of this class that follows this trace."""
        return DevicePower(self.compute_w[class_index], self.radios[trace])


def fleet_power(
    table: EnergyTable, class_names: Sequence[str], trace_ids: Sequence[str], used: AbstractSet[int]
) -> FleetPower:
    """Look up the coefficients of a fleet.

    A network's coefficients hold for the traces that are named after it: ``lte`` for ``lte`` and ``lte-07``;
    the longest name that fits counts, so that ``lte-poor-01`` is not ``lte``.

    Args:
        table: All coefficients.
        class_names: Classes of the fleet.
        trace_ids: Names of the bandwidth library.
        used: Which of these traces a device follows; the others need no coefficients.

    Raises:
        TraceError: If a class or a used trace has none: a sum over some devices would mislead.
    """
    path = table.origin.path
    nothing = RadioPower(0.0, 0.0, 0.0)
    return FleetPower(
        tuple(_compute_w(path, name, table.compute_w) for name in class_names),
        tuple(_radio(path, name, table.radios) if k in used else nothing for k, name in enumerate(trace_ids)),
    )


def _compute_w(path: str, name: str, known: Mapping[str, float]) -> float:
    found = known.get(name, known.get(ANY))
    if found is None:
        raise TraceError(
            f'{path}: expected [class."{name}"], the class of a device of the fleet, found '
            f'{_listed(known)}; add it, or [class."*"] for all others'
        )
    return found


def _radio(path: str, trace_id: str, known: Mapping[str, RadioPower]) -> RadioPower:
    fitting = [name for name in known if _is_named_after(trace_id, name)]
    name = max(fitting, key=len, default=ANY)
    if name not in known:
        raise TraceError(
            f'{path}: expected a network that the trace "{trace_id}" is named after, found {_listed(known)}; '
            f'add [network."{trace_id}"], or [network."*"] for all others'
        )
    return known[name]


def _is_named_after(trace_id: str, network: str) -> bool:
    return trace_id == network or trace_id.startswith(tuple(network + mark for mark in _SEPARATORS))


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(f'"{name}"' for name in names) or "none"
