"""What can the server see of the fleet at one instant?"""

from collections import OrderedDict
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from fedsim.method.messages import DeviceReport
from fedsim.world.device import Device
from fedsim.world.population import Population

KEPT_DEVICES = 16_384


@dataclass(frozen=True, slots=True)
class OracleWindow:
    """How far the oracle estimator looks ahead, seconds, on each link."""

    download_s: float
    upload_s: float


@dataclass(frozen=True, slots=True)
class Reporter:
    """Turns devices into what they would tell the server.

    Args:
        population: The fleet.
        num_examples: Client -> size of its data shard.
        oracle: Set only where the oracle estimator may see the future of the links.
    """

    population: Population
    num_examples: Callable[[int], int]
    oracle: OracleWindow | None = None
    _devices: OrderedDict[int, Device] = field(default_factory=OrderedDict)
    _reports: dict[int, DeviceReport] = field(default_factory=dict)

    def device(self, index: int) -> Device:
        """Return one device; those used last are kept, since making one is slow."""
        device = self._devices.get(index)
        if device is None:
            device = self._devices[index] = self.population.device(index)
            if len(self._devices) > KEPT_DEVICES:
                oldest, _ = self._devices.popitem(last=False)
                self._reports.pop(oldest, None)
        return device

    def report(self, device: Device, now_s: float) -> DeviceReport:
        """What this device tells at this instant; the same value again as long as nothing has changed."""
        memory_bytes, flops = device.memory.value(now_s), device.compute.value(now_s)
        known = self._reports.get(device.index)
        if known is not None and known.memory_bytes == memory_bytes and known.flops == flops:
            return known
        report = self._report(device, now_s, memory_bytes, flops)
        if self.oracle is None and device.index in self._devices:
            self._reports[device.index] = report
        return report

    def _report(self, device: Device, now_s: float, memory_bytes: float, flops: float) -> DeviceReport:
        return DeviceReport(
            client=device.index,
            device_class=device.device_class,
            memory_bytes=memory_bytes,
            flops=flops,
            num_examples=self.num_examples(device.index),
            latency_s=max(device.downlink.latency_s, device.uplink.latency_s),
            known_download_bps=self._known_bps(device, now_s, up=False),
            known_upload_bps=self._known_bps(device, now_s, up=True),
        )

    def _known_bps(self, device: Device, now_s: float, *, up: bool) -> float | None:
        if self.oracle is None:
            return None
        link = device.uplink if up else device.downlink
        window_s = self.oracle.upload_s if up else self.oracle.download_s
        moving_s = max(window_s - link.latency_s, 1e-9)
        return 8.0 * link.bytes_between(now_s, now_s + window_s) / moving_s


@dataclass(frozen=True)
class FleetAt:
    """The fleet at one instant; satisfies `fedsim.method.events.FleetView`.

    Args:
        reporter: Knows the devices.
        now_s: The instant.
        busy: Device -> whether it is at work already, bool (devices,).
        at_work: The same devices, quicker to ask about one.
    """

    reporter: Reporter
    now_s: float
    busy: np.ndarray
    at_work: Container[int]

    @property
    def num_devices(self) -> int:
        """How many devices there are, wherever they are."""
        return self.reporter.population.num_devices

    @cached_property
    def present(self) -> np.ndarray:
        """Indices of the devices that are online, ascending."""
        return self.reporter.population.online(self.now_s)

    def online(self) -> np.ndarray:
        """Indices of the devices that are online and idle, ascending."""
        idle: np.ndarray = self.present[~self.busy[self.present]]
        return idle

    def is_idle(self, client: int) -> bool:
        """Whether this device is online and idle."""
        return client not in self.at_work and self.reporter.population.is_online(client, self.now_s)

    def report(self, client: int) -> DeviceReport:
        """What this device tells when it checks in now."""
        return self.reporter.report(self.reporter.device(client), self.now_s)
