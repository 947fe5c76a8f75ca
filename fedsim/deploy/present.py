"""What can the server of a real run see of its fleet? Who is connected, and what they said of themselves."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fedsim.deploy.desk import Peer
from fedsim.method.messages import DeviceReport


@dataclass(frozen=True, slots=True)
class Present:
    """Who is connected and idle. Satisfies `fedsim.method.events.FleetView`."""

    peers: Mapping[int, Peer]
    num_devices: int
    report_of: Callable[[int], DeviceReport]

    def online(self) -> np.ndarray:
        """Indices, ascending."""
        return np.array(sorted(self.peers), dtype=np.int64)

    def is_idle(self, client: int) -> bool:
        """Whether this client is connected and idle."""
        return client in self.peers

    def report(self, client: int) -> DeviceReport:
        """What this client said of itself, and the scenario where it said nothing."""
        return self.report_of(client)
