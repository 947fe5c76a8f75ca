"""When do devices that take part come and go? One pending event for each, from its first dispatch on."""

from collections.abc import Generator
from dataclasses import dataclass, field

import simpy

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
            self.clock.process(self._follow(device))

    def _follow(self, device: Device) -> Generator[simpy.Event, object, None]:
        availability = device.availability
        while True:
            departure_s = availability.next_departure_s(float(self.clock.now))
            if departure_s == float("inf"):
                return
            yield self.clock.wake_at(departure_s, CLOSING)
            self.scribe.departed(departure_s, device)
            return_s = availability.next_return_s(departure_s)
            if return_s == float("inf"):
                return
            yield self.clock.wake_at(return_s)
            self.scribe.arrived(return_s, device)
