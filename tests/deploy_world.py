"""Four devices whose budgets bind in memory only, so that a simulation and a real run plan alike."""

import asyncio
from pathlib import Path

from fedsim.deploy.client import Membership, join
from fedsim.deploy.secret import Token
from fedsim.deploy.serve import Service, serve
from fedsim.experiment.scenario import load_scenario

TOKEN = Token(b"a token for tests only")
DEVICES = ("d0", "d1", "d2", "d3")

_SCENARIO = """
name: small
task: {name: embedded, max_length: 48, examples_per_client: 24}
fleet:
  devices: devices.csv
  bandwidth: bandwidth.csv
  availability_policy: always
  latency: 1 ms
method: {name: fedhera, options: {rank_cap: 8}}
server:
  pacing: sync
  cohort: 4
  download_window: 1 h
  initial_down_mbps: 1000
  initial_up_mbps: 1000
training: {local_steps: 2, batch_size: 4, learning_rate: 1e-2, wire_dtype: bfloat16}
stop: {rounds: 2}
evaluation: {every: 1, held_out_examples: 8, generate: 0}
"""


def write_world(folder: Path, devices=DEVICES, memory_mib=(64, 64, 40, 32)) -> Path:
    """Write scenario and traces; returns the scenario's path."""
    rows = [f"{name},phone,{memory_mib[k]},50,t0" for k, name in enumerate(devices)]
    (folder / "devices.csv").write_text(
        "\n".join(["device_id,device_class,mem_available_mib,compute_gflops,bandwidth_id", *rows]) + "\n"
    )
    (folder / "bandwidth.csv").write_text(
        "trace_id,time_s,down_mbps,up_mbps\nt0,0,1000,1000\nt0,3600,1000,1000\n"
    )
    path = folder / "small.yaml"
    path.write_text(_SCENARIO)
    return path


def scenario_of(folder: Path, **changes):
    return load_scenario(
        write_world(folder), {key.replace("__", "."): value for key, value in changes.items()}
    )


async def deploy(scenario, out, devices=DEVICES, service=None, instruments=(), **membership):
    """Serve a scenario to clients in this process; returns the result and the clients' reports."""
    address: asyncio.Future = asyncio.get_running_loop().create_future()
    service = service or Service(TOKEN, clients=len(devices))
    serving = asyncio.create_task(
        serve(
            scenario,
            service,
            out,
            instruments=instruments,
            report=False,
            listening=lambda host, port, _: address.set_result((host, port)),
        )
    )
    host, port = await address
    clients: list[asyncio.Task] = []
    try:
        async with asyncio.timeout(60):
            for name in devices:  # one after the other: transformers cannot load two models at once
                clients.append(await _joining(host, port, Membership(name, TOKEN, **membership)))  # noqa: PERF401
            reports = await asyncio.gather(*clients)
            return await serving, reports
    finally:
        for task in (serving, *clients):
            task.cancel()


async def _joining(host, port, membership):
    """Start a client; returns when it is ready, or has failed."""
    ready = asyncio.Event()
    task = asyncio.create_task(join(host, port, membership, lambda line: "ready" in line and ready.set()))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    return task
