"""What is one machine? Its memory, speed, links and presence, each a function of time.

*Device* is the machine; what it does in federated learning is a *client* and lives elsewhere.
"""

from dataclasses import dataclass

from fedsim.world.availability import Availability
from fedsim.world.energy import DevicePower
from fedsim.world.link import Link
from fedsim.world.trace import StepTrace


@dataclass(frozen=True, slots=True, eq=False)
class Device:
    """One machine of the fleet.

    Args:
        index: Its place in the population.
        device_id: Its name in the trace files.
        device_class: For instance ``phone-mid``.
        memory: Usable memory in bytes.
        compute: Effective training speed in FLOP per second.
        downlink: From the server.
        uplink: To the server.
        availability: When it is online.
        battery_wh: Battery capacity; None for a machine on mains.
        power: What work costs it in energy; None where nobody knows.
    """

    index: int
    device_id: str
    device_class: str
    memory: StepTrace
    compute: StepTrace
    downlink: Link
    uplink: Link
    availability: Availability
    battery_wh: float | None = None
    power: DevicePower | None = None

    def compute_end_s(self, start_s: float, flops: float) -> float:
        """Return when work of this many FLOP that starts now is done; infinity if never."""
        return self.compute.inverse_integral(start_s, flops)
