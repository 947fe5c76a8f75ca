"""A world small enough to compute by hand: real driver and server around devices with chosen durations."""

import asyncio
from dataclasses import dataclass, field

import numpy as np

from fedsim.method.estimate import RateRule
from fedsim.method.select import UniformSelect
from fedsim.method.server import Server, ServerConfig, StopRule
from fedsim.seeds import Seeds
from fedsim.sim.executor import Combined
from fedsim.sim.fleet import Reporter
from fedsim.sim.recording import Scribe
from fedsim.sim.server import Driver, DriverConfig, RealWork
from fedsim.sim.sharing import SharedLinks
from fedsim.sim.stub import StubEvaluator, StubExecutor
from fedsim.sim.timeline import Timeline
from fedsim.world.availability import Availability
from fedsim.world.device import Device
from fedsim.world.link import Link
from fedsim.world.trace import StepTrace
from tests.fakes import ToyMethod, toy_prices

FLOPS_PER_ASSIGNMENT = 1000.0 + 2 * (40.0 + 20.0)  # base, and one column in each of two layers
FAST_BPS = 1e12


def device(index, duration_s, online=((0.0, np.inf),), memory_bytes=1000.0):
    """A machine whose assignments of one column take this long; transfers take next to nothing."""
    link = Link(StepTrace.constant(FAST_BPS), 0.0)
    return Device(
        index=index,
        device_id=f"d{index}",
        device_class="phone",
        memory=StepTrace.constant(memory_bytes),
        compute=StepTrace.constant(FLOPS_PER_ASSIGNMENT / duration_s),
        downlink=link,
        uplink=link,
        availability=Availability.of(list(online)),
    )


@dataclass
class ToyPopulation:
    """Devices in a list."""

    devices: list

    @property
    def num_devices(self):
        return len(self.devices)

    def device(self, index):
        return self.devices[index]

    def online(self, t_s):
        present = [one.index for one in self.devices if one.availability.is_online(t_s)]
        return np.array(present, dtype=np.int64)

    def next_arrival_s(self, t_s):
        later = [start for one in self.devices for start in one.availability.starts_s.tolist() if start > t_s]
        return min(later, default=np.inf)


@dataclass
class ToyAggregator:
    """Versions without content; remembers what it was asked, and which versions it still holds."""

    held: set = field(default_factory=lambda: {0})
    calls: list = field(default_factory=list)
    newest: int = 0

    def spectrum(self, version):
        assert version in self.held, f"version {version} was released too early"
        return {}

    async def aggregate(self, version, updates, weights):
        assert {update.base_version for update in updates} <= self.held
        counts = [weight * update.discount for update, weight in zip(updates, weights, strict=True)]
        self.calls.append((version, [update.assignment for update in updates], counts))
        self.held.add(version + 1)
        self.newest = version + 1
        return Combined({}, {update.assignment: 0.5 for update in updates}, {})

    def release(self, version):
        self.held.remove(version)


@dataclass
class Lines:
    """Keeps the record in memory."""

    lines: list = field(default_factory=list)

    def observe(self, time_s, event, fields):
        self.lines.append({"time_s": time_s, "event": event, **fields})

    def of(self, event):
        return [line for line in self.lines if line["event"] == event]


@dataclass
class Played:
    """What came of a run."""

    lines: Lines
    aggregator: ToyAggregator
    server: Server
    reason: str


def play(
    devices,
    pacing,
    *,
    rounds=None,
    hours=None,
    select=None,
    executor=None,
    shared=None,
    work=None,
    config=None,
    lines=None,
    **changes,
):
    """Run a fleet to its end; `work` trains and measures, `config` is the driver's."""
    settings = {
        "method": ToyMethod(cap=1),
        "pacing": pacing,
        "select": select or UniformSelect(Seeds(3)),
        "prices": toy_prices(),
        "rates": RateRule("harmonic", default_bps=(FAST_BPS, FAST_BPS)),
        "seeds": Seeds(3),
        "steps": 1,
        "learning_rate": lambda version: 0.1,
        "download_window_s": 10.0,
        "replan": False,
        "replan_threshold": 0.2,
        "evaluate_every": 1,
        "stop": StopRule(rounds=rounds),
    }
    population = ToyPopulation(devices) if isinstance(devices, list) else devices
    server = Server(ServerConfig(**(settings | changes)))
    lines, aggregator, timeline = lines or Lines(), ToyAggregator(), Timeline()
    driver = Driver(
        timeline=timeline,
        server=server,
        reporter=Reporter(population, lambda client: 10 + client),
        prices=settings["prices"],
        work=RealWork(work or executor or StubExecutor(), aggregator, work or StubEvaluator()),
        scribe=Scribe([lines]),
        config=config or DriverConfig("drop", 60.0, None if hours is None else 3600.0 * hours),
        links=None if shared is None else SharedLinks(timeline.clock, *shared),
    )
    reason = asyncio.run(driver.run())
    return Played(lines, aggregator, server, reason)
