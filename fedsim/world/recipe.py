"""What does a generated fleet consist of? Values only: classes, networks, zones. Files come from `make`."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedsim.errors import TraceError
from fedsim.world.calibration import NetworkFamily, Presence, RadioPower
from fedsim.world.synth import Battery, Disturbance


@dataclass(frozen=True, slots=True)
class ClassRecipe:
    """One class of a generated fleet.

    Args:
        share: Of the fleet.
        memory_mib: Usable memory of its variants, equally likely.
        gflops: Median training speed.
        presence: How its devices come and go.
        networks: Family -> share.
        battery_wh: Median, None on mains.
        memory_use: What takes memory away, None if nothing does.
        slowing: What takes speed away, None if nothing does.
        gflops_ln_sd: Spread of the log speed.
        memory_ln_sd: Spread of the log memory around a variant.
        compute_w: Power while it trains, beyond idling; None if unknown.
        battery_use: How its battery fills and empties, for the state file; None to leave that out.
        on_wifi: When it is on Wi-Fi, and else on a cellular network, for the state file.
    """

    share: float
    memory_mib: tuple[int, ...]
    gflops: float
    presence: Presence
    networks: Mapping[str, float]
    battery_wh: float | None = None
    memory_use: Disturbance | None = None
    slowing: Disturbance | None = None
    gflops_ln_sd: float = 0.35
    memory_ln_sd: float = 0.06
    compute_w: float | None = None
    battery_use: Battery | None = None
    on_wifi: Presence | None = None

    @property
    def has_state(self) -> bool:
        """Whether its devices have events."""
        parts = (self.memory_use, self.slowing, self.battery_use, self.on_wifi)
        return any(part is not None for part in parts)


@dataclass(frozen=True, slots=True)
class LibraryPart:
    """How many traces of a family the library holds, and how they are sampled."""

    traces: int
    num_steps: int
    step_s: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """A generated fleet.

    Args:
        name: For the README and for sources.
        classes: By name; shares add up to 1.
        zones_h: Hours from UTC -> share.
        families: Access networks by name.
        library: Family -> traces of it.
        scale_ln_sd: Spread of the log of a device's own factor on its trace.
        energy: Coefficients to write beside the fleet: family -> watts; empty to write none.
    """

    name: str
    classes: Mapping[str, ClassRecipe]
    zones_h: Mapping[float, float]
    families: Mapping[str, NetworkFamily]
    library: Mapping[str, LibraryPart]
    scale_ln_sd: float = 0.15
    energy: Mapping[str, RadioPower] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_shares(f"recipe {self.name}: classes", {k: c.share for k, c in self.classes.items()})
        _check_shares(f"recipe {self.name}: zones", {f"{k:g}": share for k, share in self.zones_h.items()})
        for name, made in self.classes.items():
            where = f"recipe {self.name}: classes.{name}.networks"
            _check_shares(where, made.networks)
            _check_known(where, made.networks, self.library)
        _check_known(f"recipe {self.name}: library", self.library, self.families)
        self._check_energy()

    def _check_energy(self) -> None:
        """All coefficients or none: a sum over some devices would mislead."""
        where = f"recipe {self.name}: energy"
        _check_known(where, self.energy, self.families)
        powered = [name for name, made in self.classes.items() if made.compute_w is not None]
        if not self.energy and powered:
            raise TraceError(
                f"{where}: expected radios, since {powered[0]} has compute_w; add them or drop it"
            )
        lacking = [name for name in self.library if name not in self.energy]
        lacking += [f"compute_w of {name}" for name in self.classes if name not in powered]
        if self.energy and lacking:
            raise TraceError(
                f"{where}: expected coefficients of all, found no {lacking[0]}; add or drop energy"
            )

    @property
    def has_state(self) -> bool:
        """Whether any device has events."""
        return any(made.has_state for made in self.classes.values())


def _check_shares(where: str, shares: Mapping[str, float]) -> None:
    total = sum(shares.values())
    if not shares or min(shares.values()) < 0 or abs(total - 1) > 1e-6:
        raise TraceError(f"{where}: expected shares >= 0 that add up to 1, got a sum of {total:g}; mend them")


def _check_known(where: str, found: Mapping[str, object], known: Mapping[str, object]) -> None:
    for name in found:
        if name not in known:
            raise TraceError(f'{where}: expected one of {", ".join(known)}, got "{name}"; add or rename it')
