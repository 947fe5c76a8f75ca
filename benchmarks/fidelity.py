"""How true is the clock? One scenario, simulated and really run over shaped links, phase by phase.

    python -m benchmarks.fidelity [--rounds 5] [--out FILE]

Needs root, `ip` and `tc`. A server and four clients get network namespaces of their own; the links between
them follow shipped traces, second by second (`benchmarks/_shaped_net.py` says how). Nothing leaves these
namespaces, and they are removed at the end. Training is pinned: it lasts as long as the cost model says.

The simulator says that the server itself takes no time: the traces are held while it combines and measures,
and what that took is a figure of its own.
"""

import argparse
import csv
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks._shaped_net import Line, Net, Shaper, missing, network

CLIENTS = ("c0", "c1", "c2", "c3")
TRACES = {
    "network_3g": "3g-03",
    "network_lte_poor": "lte-poor-01",
    "gateways": "wifi-slow-02",
}
FOLLOWED = ("3g-03", "lte-poor-01", "wifi-slow-02", "lte-poor-01")
OFFSETS_S = (0, 0, 0, 60)
GFLOPS = (0.40, 0.45, 0.50, 0.55)  # slow enough that a busy machine trains in less than the pinned time
TRACE_S = 3600
LEAST_MBPS = 0.2  # a bucket cannot stand still
PHASES = {"downloaded": "download", "trained": "train", "uploaded": "upload"}

SCENARIO = """
name: fidelity
task: {name: embedded, max_length: 48, examples_per_client: 24}
fleet: {devices: devices.csv, bandwidth: bandwidth.csv, availability_policy: always, latency: 0 s}
method: {name: fedhera, options: {rank_cap: 64, initial_rank: 64}}
server: {pacing: sync, cohort: 4, download_window: 1 h, initial_down_mbps: 1000, initial_up_mbps: 1000,
         replan: false}
training: {local_steps: 2, batch_size: 4, learning_rate: 1e-2, wire_dtype: float32}
stop: {rounds: %d}
evaluation: {every: 1000, held_out_examples: 8, generate: 0}
"""


def shipped_lines() -> dict[str, Line]:
    """Three shipped traces, a rate each second, repeated for an hour; outages have the least rate."""
    found = {}
    for folder, name in TRACES.items():
        path = Path(__file__).parents[1] / "traces" / folder / "bandwidth.csv"
        with path.open() as file:
            rows = [row for row in csv.DictReader(file) if row["trace_id"] == name]
        if [float(row["time_s"]) for row in rows] != list(range(len(rows))):
            raise ValueError(f"{path}: expected a rate of {name} each second")
        rates = np.array([[float(row["down_mbps"]), float(row["up_mbps"])] for row in rows])
        down, up = np.resize(np.maximum(rates, LEAST_MBPS), (TRACE_S, 2)).T.tolist()
        found[name] = Line(down, up)
    return found


def client_lines() -> list[Line]:
    """What each client's line does from the start of the run."""
    lines = shipped_lines()
    return [
        Line(lines[name].down[offset:], lines[name].up[offset:])
        for name, offset in zip(FOLLOWED, OFFSETS_S, strict=True)
    ]


def write_world(folder: Path, rounds: int) -> Path:
    rows = [
        f"{name},phone,512,{speed},{trace},{offset}"
        for name, speed, trace, offset in zip(CLIENTS, GFLOPS, FOLLOWED, OFFSETS_S, strict=True)
    ]
    head = "device_id,device_class,mem_available_mib,compute_gflops,bandwidth_id,bandwidth_offset_s"
    (folder / "devices.csv").write_text("\n".join([head, *rows]) + "\n")
    lines = ["trace_id,time_s,down_mbps,up_mbps"]
    for name, line in shipped_lines().items():
        both = zip(line.down, line.up, strict=True)
        lines += [f"{name},{at},{down},{up}" for at, (down, up) in enumerate(both)]
    (folder / "bandwidth.csv").write_text("\n".join(lines) + "\n")
    path = folder / "fidelity.yaml"
    path.write_text(SCENARIO % rounds)
    return path


def _inside(space: str, *words) -> list[str]:
    """A fedsim command in a namespace."""
    return ["ip", "netns", "exec", space, sys.executable, "-m", "fedsim", *map(str, words)]


def _client(net: Net, k: int, token: Path, env: dict[str, str]) -> subprocess.Popen:
    words = ["join", f"{net.address(k)}:7117", "--device", CLIENTS[k], "--token-file", token]
    words += ["--pin", f"{GFLOPS[k]} GFLOP/s", "--quiet"]
    return subprocess.Popen(_inside(net.clients[k], *words), stdout=subprocess.PIPE, text=True, env=env)


def really(path: Path, out: Path, starts_s: list[float]) -> tuple[list[str], list[float]]:
    """Run the scenario over shaped links; returns what clients said, and how late each rate was."""
    token = out.parent / "token"
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    started: list[subprocess.Popen] = []
    with network(client_lines()) as net:
        shaper = Shaper(net, starts_s)
        shaper.start()
        try:
            server = subprocess.Popen(
                [
                    *_inside(net.server, "serve", path, "--host", "0.0.0.0", "--clients", 4),
                    *("--out", str(out), "--token-file", str(token), "--no-report"),
                ],
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                text=True,
                env=env,
            )
            started.append(server)
            for line in server.stderr:
                if "listening" in line:
                    started += [_client(net, k, token, env) for k in range(len(CLIENTS))]
                elif "asking clients" in line:
                    shaper.begin()
                elif "error" in line:
                    raise RuntimeError(line)
            if server.wait(60):
                raise RuntimeError(f"the server ended with {server.returncode}")
            said = [client.communicate(timeout=60)[0].strip() for client in started[1:]]
        finally:
            shaper.end()
            for process in started:
                process.kill()  # does nothing to one that has ended
                process.wait()
        return said, shaper.late_s


def record(directory: Path) -> dict:
    """Phases, rounds and aggregates of a run."""
    lines = [json.loads(line) for line in (directory / "events.jsonl").read_text().splitlines()]
    phases, begun, ended, order = {}, {}, {}, []
    for line in lines:
        event = line["event"]
        if event in PHASES:
            phases[line["assignment"], PHASES[event]] = line["duration_s"]
            if event == "uploaded":
                ended[line["assignment"]] = line["time_s"]
        elif event == "dispatched":
            begun[line["assignment"]] = (line["version"], line["client"], line["time_s"])
        elif event == "aggregating":
            order.append([(begun[number][1], number) for number in line["assignments"]])
    rounds = {}
    for number, (version, _, at_s) in begun.items():
        first, last = rounds.get(version, (math.inf, 0.0))
        rounds[version] = (min(first, at_s), max(last, ended[number]))
    return {"phases": phases, "rounds": rounds, "order": order}


def compare(simulated: dict, real: dict) -> dict:
    """How far off is the simulation, relative to what really happened?"""
    pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in ("download", "train", "upload")}
    for key, found in real["phases"].items():
        pairs[key[1]].append((simulated["phases"][key], found))
    pairs["transfer"] = pairs["download"] + pairs["upload"]
    spans = {
        version: (simulated["rounds"][version], real["rounds"][version]) for version in sorted(real["rounds"])
    }
    pairs["round"] = [(s[1] - s[0], r[1] - r[0]) for s, r in spans.values()]
    ends, starts = zip(*((r[1], r[0]) for _, r in spans.values()), strict=True)
    return {
        "errors": {name: errors(found) for name, found in pairs.items()},
        "same_order": simulated["order"] == real["order"],
        "server_s": [later - end for end, later in zip(ends, starts[1:], strict=False)],
        "seconds": pairs,
    }


def errors(pairs: list[tuple[float, float]]) -> dict[str, float]:
    """Median and worst relative error; `late_s` is how much longer than simulated it really took."""
    off = [abs(simulated / real - 1.0) for simulated, real in pairs]
    late_s = median(real - simulated for simulated, real in pairs)
    return {"n": len(off), "median": median(off), "worst": max(off), "late_s": late_s}


def adapters_differ_by(left: Path, right: Path) -> float:
    """Largest difference of the exported factors, relative to the largest number in them."""
    from safetensors.numpy import load_file

    ours, theirs = (load_file(path / "adapter" / "adapter_model.safetensors") for path in (left, right))
    top = max(float(np.abs(tensor).max()) for tensor in theirs.values())
    return max(float(np.abs(ours[name] - theirs[name]).max()) for name in theirs) / top


def measure(rounds: int, folder: Path) -> dict:
    """Simulate, run, compare."""
    import fedsim

    path = write_world(folder, rounds)
    fedsim.run(path, folder / "simulated", report=False)
    simulated = record(folder / "simulated")
    starts_s = [span[0] for _, span in sorted(simulated["rounds"].items())]
    said, late_s = really(path, folder / "real", starts_s)
    found = compare(simulated, record(folder / "real"))
    return found | {
        "adapter_difference": adapters_differ_by(folder / "real", folder / "simulated"),
        "clients": said,
        "rate_late_s": {"median": median(late_s), "worst": max(late_s)},
        "load_average": os.getloadavg()[0],
    }


def show(found: dict) -> str:
    late = found["rate_late_s"]
    lines = [f"{'phase':>10} {'n':>4} {'median':>8} {'worst':>8} {'later by':>10}"]
    for name, error in found["errors"].items():
        off = f"{error['median']:>8.2%} {error['worst']:>8.2%} {1e3 * error['late_s']:>7.0f} ms"
        lines.append(f"{name:>10} {error['n']:>4} {off}")
    lines += [
        f"same clients in the same order in every aggregation: {'yes' if found['same_order'] else 'NO'}",
        f"adapters differ by {found['adapter_difference']:.2g} of the largest number",
        f"the server took {median(found['server_s']):.2f} s between rounds (median), which is not simulated",
        f"a rate was set {1e3 * late['median']:.1f} ms late (median), {1e3 * late['worst']:.0f} ms at worst",
        f"load average {found['load_average']:.1f}",
        *found["clients"],
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compare a simulation with a real run over shaped links.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=None, help="JSON file of the figures")
    options = parser.parse_args(arguments)
    reason = missing()
    if reason is not None:
        print(f"skipped: {reason}")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # namespaces go with it, as at any other end
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.rounds, Path(folder))
    print(show(found))
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
