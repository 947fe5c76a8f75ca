"""When do devices that take part come and go? One pending event for each, from its first dispatch on."""

from dataclasses import dataclass, field

from fedsim.sim.recording import Scribe
from fedsim.sim.timeline import CLOSING, Clock
from fedsim.world.device import Device
from fedsim.world.population import Population


@dataclass(slots=True)
class Presence:
    """Records arrivals and departures of participants; idle devices cost nothing.

    Args:
        clock: Virtual time.
        population: The fleet.
        scribe: Writes the record.
    """

    clock: Clock
    population: Population
    scribe: Scribe
    _watched: set[int] = field(default_factory=set)

    def watch(self, device: Device) -> None:
        """Follow a device that takes part for the first time."""
        if device.index not in self._watched:
            self._watched.add(device.index)
            departure_s = device.availability.next_departure_s(float(self.clock.now))
            if departure_s != float("inf"):
                self.clock.then_at(departure_s, lambda: self._departs(device, departure_s), CLOSING)

    def _departs(self, device: Device, now_s: float) -> None:
        self.scribe.departed(now_s, device)
        return_s = device.availability.next_return_s(now_s)
        if return_s != float("inf"):
            self.clock.then_at(return_s, lambda: self._arrives(device, return_s))

    def _arrives(self, device: Device, now_s: float) -> None:
        self.scribe.arrived(now_s, device)
        departure_s = device.availability.next_departure_s(now_s)
        if departure_s != float("inf"):
            self.clock.then_at(departure_s, lambda: self._departs(device, departure_s), CLOSING)
