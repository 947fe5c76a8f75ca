"""Laws 9 and 10 on random little worlds: bytes are conserved, time never falls, jitter changes nothing."""

import asyncio
import random
import tempfile
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import HealthCheck, example, given, settings

from fedsim.experiment.record import Tally
from fedsim.method.estimate import RateRule
from fedsim.method.pacing import SyncPacing
from fedsim.method.select import UniformSelect
from fedsim.method.server import Server, ServerConfig, StopRule
from fedsim.seeds import Seeds
from fedsim.sim.fleet import Reporter
from fedsim.sim.recording import Scribe
from fedsim.sim.server import Driver, DriverConfig, RealWork
from fedsim.sim.sharing import SharedCapacity, SharedLinks
from fedsim.sim.stub import StubAggregator, StubEvaluator, StubExecutor
from fedsim.sim.timeline import Timeline
from fedsim.world.load import load_population
from fedsim.world.shape import LayerShape, ModelShape
from fedsim.world.trace import StepTrace
from tests import audit
from tests.fakes import ToyMethod, toy_prices

LAYERS = tuple(LayerShape(f"layer{index}", 8, 8, "x") for index in range(2))
SHAPE = ModelShape("toy", LAYERS, 1, 1, 1, 8, 8, 1, 8)

ONLINE = st.lists(st.tuples(st.integers(0, 900), st.integers(1, 300)), min_size=1, max_size=4)
RATES = st.lists(st.sampled_from([0.0, 0.00002, 0.0001, 0.0005, 0.002]), min_size=2, max_size=8).filter(any)
MEMORY = st.sampled_from([100, 250, 320, 500, 1000])
WORLDS = st.lists(st.tuples(ONLINE, RATES, MEMORY), min_size=1, max_size=5)


WAYS = {  # how deliveries, uploads and lack of memory are taken
    "plain": ({}, {}),
    "streams": ({"progressive": True}, {}),
    "parts": ({"partial_upload": True}, {"partial_upload": True}),
    "shrinks": ({}, {"on_memory_drop": "shrink"}),
    "all": (
        {"progressive": True, "partial_upload": True, "safety_margin": 0.1},
        {"partial_upload": True, "on_memory_drop": "shrink"},
    ),
}
DIPS = st.lists(st.tuples(st.integers(1, 1100), st.sampled_from([90, 150, 220, 1000])), max_size=5)


def write_world(folder, world, dips=()):
    """Devices of toy size: memory in bytes (as tiny shares of a MiB), links of a few bytes a second."""
    state = ["device_id,time_s,key,value"]
    for index in range(len(world)):
        state += [
            f"d{index},{at},mem_available_mib,{size / 2**20!r}" for at, size in sorted(dict(dips).items())
        ]
    (folder / "state.csv").write_text("\n".join(state) + "\n")
    (folder / "state.csv.toml").write_text("period_s = 1200\n")
    devices = ["device_id,device_class,mem_available_mib,compute_gflops,bandwidth_id,availability_period_s"]
    online = ["device_id,start_s,end_s"]
    rates = ["trace_id,time_s,down_mbps,up_mbps"]
    for index, (intervals, steps, memory) in enumerate(world):
        devices.append(f"d{index},toy,{memory / 2**20!r},{30e-9!r},t{index},1200")
        online += [f"d{index},{start},{start + length}" for start, length in intervals]
        rates += [f"t{index},{10 * k},{rate!r},{rate / 2!r}" for k, rate in enumerate(steps)]
    for name, rows in (("devices", devices), ("availability", online), ("bandwidth", rates)):
        (folder / f"{name}.csv").write_text("\n".join(rows) + "\n")


class Jittery:
    """Answers after a while, a different one at each call."""

    def __init__(self, inner, seed):
        self.inner, self.random = inner, random.Random(seed)

    async def train(self, requests):
        await asyncio.sleep(self.random.random() * 1e-3)
        return await self.inner.train(requests)


class Lines:
    def __init__(self):
        self.events, self.tally = [], Tally()

    def observe(self, time_s, event, fields):
        self.events.append({"time_s": time_s, "event": event, **fields})
        self.tally.observe(time_s, event, fields)


def simulate(
    folder, *, jitter, pause, surplus, prefetch, deadline_s, seed, way="plain", state=None, shared=None
):
    of_server, of_driver = WAYS[way]
    population = load_population(
        folder / "devices.csv",
        folder / "bandwidth.csv",
        folder / "availability.csv",
        state,
        availability_policy="never",
        merge_gap_s=0.0,
        latency_s=0.5,
    )
    prices, lines, timeline = toy_prices(), Lines(), Timeline()
    server = Server(
        ServerConfig(
            method=ToyMethod(),
            pacing=SyncPacing(2, 1.5, 1, deadline_s, surplus),
            select=UniformSelect(Seeds(seed)),
            prices=prices,
            rates=RateRule("harmonic", default_bps=(200.0, 100.0)),
            seeds=Seeds(seed),
            steps=1,
            learning_rate=lambda version: 0.1,
            download_window_s=20.0,
            replan=True,
            replan_threshold=0.2,
            evaluate_every=1,
            stop=StopRule(rounds=6),
            **of_server,
        )
    )
    executor = StubExecutor()
    driver = Driver(
        timeline=timeline,
        server=server,
        reporter=Reporter(population, lambda client: client + 1),
        prices=prices,
        work=RealWork(
            Jittery(executor, jitter) if jitter else executor,
            StubAggregator(SHAPE, Seeds(seed), 1.0, 8),
            StubEvaluator(),
        ),
        scribe=Scribe([lines]),
        config=DriverConfig("pause" if pause else "drop", 3.0, 3000.0, prefetch, **of_driver),
        links=shared and SharedLinks(timeline.clock, shared, [k % 2 for k in range(population.num_devices)]),
    )
    asyncio.run(driver.run())
    return lines, population


RUNS = {
    "world": WORLDS,
    "pause": st.booleans(),
    "surplus": st.sampled_from(["recall", "finish"]),
    "deadline_s": st.sampled_from([20.0, 77.7, 400.0]),
    "seed": st.integers(0, 3),
    "way": st.sampled_from(sorted(WAYS)),
    "dips": DIPS,
}


@given(**RUNS, prefetch=st.sampled_from(["certain", "speculative"]))
@example(  # a re-plan that asks for no more than the bytes that are there
    world=[([(0, 138)], [2e-05, 2e-05, 0.0005], 250)],
    pause=False,
    surplus="recall",
    deadline_s=77.7,
    seed=0,
    way="plain",
    dips=[],
    prefetch="speculative",
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_world_keeps_its_books_whatever_the_machine_does(
    world, pause, surplus, deadline_s, seed, way, dips, prefetch
):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_world(folder, world, dips)
        state = folder / "state.csv" if dips else None
        rules = {"pause": pause, "surplus": surplus, "deadline_s": deadline_s, "seed": seed}
        rules |= {"way": way, "state": state}
        lines, population = simulate(folder, jitter=0, prefetch="none", **rules)
        jittery, _ = simulate(folder, jitter=7, prefetch=prefetch, **rules)
    assert jittery.events == lines.events
    events = lines.events
    audit.check_order(events)
    audit.check_outcomes(events)
    summary = {"bytes_down": lines.tally.bytes_down, "bytes_up": lines.tally.bytes_up}
    audit.check_bytes(events, summary)
    check_links(events, population)


def check_links(events, population):
    """A whole transfer carried exactly what its plan costs, and the link could carry that in the time."""
    prices = toy_prices()
    plans = {event["plan"]: event for event in audit.of(events, "plan")}
    client = {event["assignment"]: event["client"] for event in audit.of(events, "dispatched")}
    started = {event["assignment"]: plans[event["plan"]] for event in audit.of(events, "training_started")}
    paused = {event["assignment"] for event in audit.of(events, "paused")}
    replanned = {event["assignment"] for event in audit.of(events, "replanned")}  # may end within a byte
    for event in audit.of(events, "downloaded") + audit.of(events, "uploaded"):
        number = event["assignment"]
        device = population.device(client[number])
        link = device.downlink if event["event"] == "downloaded" else device.uplink
        if number in started:
            check_size(event, started[number], prices)
        if number not in paused:
            begun = event["time_s"] - event["duration_s"]
            carried = link.bytes_between(begun, event["time_s"])
            slack = 1e-6 * max(1.0, event["bytes"]) + 1e-4
            may_be_cut = "cut" in event or "unused_bytes" in event
            begun_byte = number in replanned and event["event"] == "downloaded"
            assert -slack < carried - event["bytes"] < slack + (1.0 if may_be_cut or begun_byte else 0.0)


def check_size(event, plan, prices):
    """What came is what the plan costs, but for a part of a column, or of an update of some columns."""
    if "cut" in event:
        assert 10 <= event["bytes"] <= prices.download_bytes(plan["trained"])
        return
    ranks = plan["total"] if event["event"] == "downloaded" else plan["trained"]
    assert 0 <= event.get("unused_bytes", 0) < 10
    assert event["bytes"] - event.get("unused_bytes", 0) == prices.download_bytes(ranks)


CAPACITY = st.sampled_from([40.0, 150.0, 500.0, 3000.0])


@given(
    world=WORLDS,
    pause=st.booleans(),
    surplus=st.sampled_from(["recall", "finish"]),
    deadline_s=st.sampled_from([20.0, 77.7, 400.0]),
    cells=st.none() | st.tuples(CAPACITY, CAPACITY),
    common=st.none() | CAPACITY,
    way=st.sampled_from(sorted(WAYS)),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_shared_links_keep_the_books_too(world, pause, surplus, deadline_s, cells, common, way):
    shared = SharedCapacity(
        tuple(map(StepTrace.constant, cells or ())), None if common is None else StepTrace.constant(common)
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_world(folder, world)
        rules = {"pause": pause, "surplus": surplus, "deadline_s": deadline_s, "seed": 0, "way": way}
        both = {"download": shared, "upload": shared}
        lines, population = simulate(folder, jitter=0, prefetch="none", shared=both, **rules)
        again, _ = simulate(folder, jitter=7, prefetch="speculative", shared=both, **rules)
    assert again.events == lines.events
    audit.check_order(lines.events)
    audit.check_outcomes(lines.events)
    audit.check_bytes(lines.events, {"bytes_down": lines.tally.bytes_down, "bytes_up": lines.tally.bytes_up})
    check_shared(lines.events, population, cells, common)


def check_shared(events, population, cells, common):
    """Whole transfers fit into what their own link, their cell and the common link carried meanwhile."""
    client = {event["assignment"]: event["client"] for event in audit.of(events, "dispatched")}
    paused = {event["assignment"] for event in audit.of(events, "paused")}
    for kind, link_of in (("downloaded", "downlink"), ("uploaded", "uplink")):
        whole = [event for event in audit.of(events, kind) if event["assignment"] not in paused]
        for event in whole:
            began, device = event["time_s"] - event["duration_s"], client[event["assignment"]]
            link = getattr(population.device(device), link_of)
            slack = 1e-6 * (1.0 + event["bytes"])
            assert event["bytes"] <= link.bytes_between(began, event["time_s"]) + slack
            for capacity, mates in (
                (
                    cells and cells[device % 2],
                    [e for e in whole if client[e["assignment"]] % 2 == device % 2],
                ),
                (common, whole),
            ):
                if capacity:
                    inside = [
                        e
                        for e in mates
                        if e["time_s"] <= event["time_s"] and e["time_s"] - e["duration_s"] >= began
                    ]
                    sent = sum(e["bytes"] for e in inside)
                    assert 8.0 * sent <= capacity * event["duration_s"] + 8.0 * slack * len(inside)
