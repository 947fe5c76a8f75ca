"""How true is the clock? One scenario, simulated and really run over shaped links, phase by phase.

    python -m benchmarks.fidelity [--rounds 5] [--out FILE]

Needs root, `ip` and `tc`. A server and four clients get network namespaces of their own, joined by veth
pairs; a token bucket at each end is given a new rate every second, along three traces. Nothing leaves these
namespaces, and they are removed at the end. Training is pinned: it lasts as long as the cost model says.

Two things are stated rather than hidden. A trace counts bytes of columns, so the bucket's rate is higher by
the headers of Ethernet, IP and TCP. And the simulator says that the server itself takes no time: the traces
are held while it combines and measures, and what that took is a figure of its own.
"""

import argparse
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np

CLIENTS = ("c0", "c1", "c2", "c3")
TRACES = ("t0", "t1", "t2", "t0")
OFFSETS_S = (0, 0, 0, 7)
GFLOPS = (0.15, 0.18, 0.21, 0.15)  # slow enough that a busy machine trains in less than the pinned time
TRACE_S = 300
HEADERS = 1514 / 1448  # Ethernet, IP and TCP with time stamps around a full segment
BURST_BYTES, QUEUE_BYTES = 3200, 120_000
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


def missing() -> str | None:
    """Why this cannot run here; None if it can."""
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            return f"needs the command {tool} (iproute2)"
    name = f"fsim{os.getpid()}probe"
    done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"cannot make network namespaces: {done.stderr.strip()}"
    done = subprocess.run(
        f"tc -n {name} qdisc add dev lo root tbf rate 1mbit burst 3200 limit 9000".split(),
        capture_output=True,
        text=True,
        check=False,
    )
    subprocess.run(["ip", "netns", "del", name], check=False)
    return f"the kernel has no token bucket: {done.stderr.strip()}" if done.returncode else None


def rates_mbps() -> dict[str, np.ndarray]:
    """Three links whose rate changes every second: steady, wavy, rough."""
    rng = np.random.default_rng(7)
    seconds = np.arange(TRACE_S)
    steady = 4.0 + 0.3 * rng.standard_normal(TRACE_S)
    wavy = 4.0 + 1.5 * np.sin(seconds / 5.0) + 0.2 * rng.standard_normal(TRACE_S)
    rough = 3.5 * np.exp(0.35 * rng.standard_normal(TRACE_S))
    return {
        name: np.round(np.clip(rate, 1.5, 8.0), 3)
        for name, rate in (("t0", steady), ("t1", wavy), ("t2", rough))
    }


def write_world(folder: Path, rounds: int) -> Path:
    rows = [
        f"{name},phone,512,{speed},{trace},{offset}"
        for name, speed, trace, offset in zip(CLIENTS, GFLOPS, TRACES, OFFSETS_S, strict=True)
    ]
    head = "device_id,device_class,mem_available_mib,compute_gflops,bandwidth_id,bandwidth_offset_s"
    (folder / "devices.csv").write_text("\n".join([head, *rows]) + "\n")
    lines = ["trace_id,time_s,down_mbps,up_mbps"]
    for name, rates in rates_mbps().items():
        lines += [f"{name},{at},{rate},{rate}" for at, rate in enumerate(rates.tolist())]
    (folder / "bandwidth.csv").write_text("\n".join(lines) + "\n")
    path = folder / "fidelity.yaml"
    path.write_text(SCENARIO % rounds)
    return path


class Net:
    """A star of namespaces: one for the server, one for each client."""

    def __init__(self) -> None:
        self.prefix = f"fsim{os.getpid()}"
        self.server = f"{self.prefix}s"

    def name(self, k: int) -> str:
        return f"{self.prefix}c{k}"

    def build(self) -> None:
        _do("ip", "netns", "add", self.server)
        for k in range(len(CLIENTS)):
            own = self.name(k)
            _do("ip", "netns", "add", own)
            _do(
                "ip",
                "-n",
                self.server,
                "link",
                "add",
                f"v{k}",
                "type",
                "veth",
                "peer",
                "name",
                "w0",
                "netns",
                own,
            )
            for space, link, address in (
                (self.server, f"v{k}", f"10.77.{k}.1/30"),
                (own, "w0", f"10.77.{k}.2/30"),
            ):
                _do("ip", "-n", space, "link", "set", "dev", link, "gso_max_segs", "1", "up")
                _do("ip", "-n", space, "address", "add", address, "dev", link)
        self.shape(0, "add")

    def shape(self, at_s: int, verb: str = "change") -> None:
        """Give every bucket the rate of this second."""
        rates = rates_mbps()
        for space, links in self.links().items():
            batch = "".join(
                f"qdisc {verb} dev {link} root tbf rate "
                f"{round(rates[trace][(at_s + offset) % TRACE_S] * HEADERS * 1e6)}bit "
                f"burst {BURST_BYTES} limit {QUEUE_BYTES}\n"
                for link, trace, offset in links
            )
            subprocess.run(["tc", "-n", space, "-batch", "-"], input=batch, text=True, check=True)

    def links(self) -> dict[str, list[tuple[str, str, int]]]:
        both = list(zip(TRACES, OFFSETS_S, strict=True))
        spaces = {self.server: [(f"v{k}", *both[k]) for k in range(len(CLIENTS))]}
        return spaces | {self.name(k): [("w0", *both[k])] for k in range(len(CLIENTS))}

    def remove(self) -> None:
        for name in (self.server, *(self.name(k) for k in range(len(CLIENTS)))):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _do(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True)


class Shaper(threading.Thread):
    """Moves all links along their traces, from the instant at which a round begins."""

    def __init__(self, net: Net, starts_s: list[float]) -> None:
        super().__init__(daemon=True)
        self.net, self.starts_s = net, starts_s
        self.began: float | None = None
        self.round = -1
        self.over = threading.Event()
        self.changed = threading.Event()
        self.worst_late_s = 0.0

    def begin(self) -> None:
        """A round begins now; its traces are where the simulation says they are."""
        self.round += 1
        self.began = time.monotonic() - self.starts_s[min(self.round, len(self.starts_s) - 1)]
        self.changed.set()

    def end(self) -> None:
        self.over.set()
        self.changed.set()
        self.join(5)

    def run(self) -> None:
        self.changed.wait()
        while not self.over.is_set():
            self.changed.clear()
            now_s = time.monotonic() - self.began
            self.net.shape(math.floor(now_s))
            due_s = math.floor(now_s) + 1
            late_s = time.monotonic() - self.began - now_s
            self.worst_late_s = max(self.worst_late_s, late_s)
            self.changed.wait(max(0.0, due_s - (time.monotonic() - self.began)))


@contextmanager
def network():
    net = Net()
    try:
        net.build()
        yield net
    finally:
        net.remove()


def _inside(space: str, *words) -> list[str]:
    """A fedsim command in a namespace."""
    return ["ip", "netns", "exec", space, sys.executable, "-m", "fedsim", *map(str, words)]


def _client(net: Net, k: int, token: Path, env: dict[str, str]) -> subprocess.Popen:
    words = ["join", f"10.77.{k}.1:7117", "--device", CLIENTS[k], "--token-file", token]
    words += ["--pin", f"{GFLOPS[k]} GFLOP/s", "--quiet"]
    return subprocess.Popen(_inside(net.name(k), *words), stdout=subprocess.PIPE, text=True, env=env)


def really(path: Path, out: Path, starts_s: list[float]) -> tuple[list[str], float]:
    """Run the scenario over shaped links; returns what clients said, and how late a rate was at worst."""
    token = out.parent / "token"
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    started: list[subprocess.Popen] = []
    with network() as net:
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
        return said, shaper.worst_late_s


def record(directory: Path) -> dict:
    """Phases, rounds and aggregates of a run."""
    lines = [json.loads(line) for line in (directory / "events.jsonl").read_text().splitlines()]
    phases, begun, ended, order, closed = {}, {}, {}, [], []
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
        elif event == "round_closed":
            closed.append(line["time_s"])
    rounds = {}
    for number, (version, _, at_s) in begun.items():
        first, last = rounds.get(version, (math.inf, 0.0))
        rounds[version] = (min(first, at_s), max(last, ended[number]))
    return {"phases": phases, "rounds": rounds, "order": order, "closed": closed}


def compare(simulated: dict, real: dict) -> dict:
    """Relative errors of the simulation."""

    def off(expected: float, found: float) -> float:
        return abs(expected / found - 1.0)

    errors: dict[str, list[float]] = {name: [] for name in ("download", "train", "upload")}
    for key, found in real["phases"].items():
        errors[key[1]].append(off(simulated["phases"][key], found))
    errors["transfer"] = errors["download"] + errors["upload"]
    spans = {version: (simulated["rounds"][version], real["rounds"][version]) for version in real["rounds"]}
    errors["round"] = [off(s[1] - s[0], r[1] - r[0]) for s, r in spans.values()]
    starts = [real["rounds"][version][0] for version in sorted(real["rounds"])]
    ends = [real["rounds"][version][1] for version in sorted(real["rounds"])]
    return {
        "errors": {
            name: {"n": len(found), "median": median(found), "worst": max(found)}
            for name, found in errors.items()
        },
        "same_order": simulated["order"] == real["order"],
        "server_s": [later - end for end, later in zip(ends, starts[1:], strict=False)],
        "rounds": [
            {"simulated_s": s[1] - s[0], "real_s": r[1] - r[0]} for _, (s, r) in sorted(spans.items())
        ],
    }


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
        "rate_late_s": late_s,
        "load_average": os.getloadavg()[0],
    }


def show(found: dict) -> str:
    lines = [f"{'phase':>10} {'n':>4} {'median':>8} {'worst':>8}"]
    for name, error in found["errors"].items():
        lines.append(f"{name:>10} {error['n']:>4} {error['median']:>8.2%} {error['worst']:>8.2%}")
    lines += [
        f"same clients in the same order in every aggregation: {'yes' if found['same_order'] else 'NO'}",
        f"adapters differ by {found['adapter_difference']:.2g} of the largest number",
        f"the server took {median(found['server_s']):.2f} s between rounds (median), which is not simulated",
        f"a rate was set at most {1e3 * found['rate_late_s']:.0f} ms late",
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
