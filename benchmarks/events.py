"""How many assignments per second does the clock carry, and does a larger fleet cost more?

python -m benchmarks.events [--populations 10000,100000,1000000] [--assignments N] [--repeats N] [--record]

The stub executor under buffered pacing: `scenarios/million_phones.yaml` at several sizes of its fleet,
stopped after so many assignments. Building the fleet is not counted. Each size runs in a process of its own,
since a peak of memory never falls again. Lines are counted; with `--record` the scenario's record is written.

Machines differ by more than programs do, so each run is also compared with SimPy itself: a process that waits
for three timeouts, which is what an assignment would be if nothing were decided, priced, drawn or recorded.
"""

import argparse
import asyncio
import gc
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import simpy

from fedsim.experiment.build import build
from fedsim.experiment.record import Recorder, Tally
from fedsim.experiment.run import simulate
from fedsim.experiment.scenario import load_scenario

SCENARIO = Path(__file__).parents[1] / "scenarios" / "million_phones.yaml"
AIM_PER_S, AIM_RSS_BYTES, AIM_SPREAD = 10_000, 2e9, 0.10


def bare_us(processes: int = 40_000, at_work: int = 400) -> float:
    """Return the processor time of a SimPy process with three timeouts, in microseconds."""

    def assignment(env: simpy.Environment, k: int):
        for phase in range(3):
            yield env.timeout(1.0 + (k * 7919 + phase * 104_729) % 1009 / 1009)

    def source(env: simpy.Environment):
        for k in range(processes):
            env.process(assignment(env, k))
            yield env.timeout(4.5 / at_work)

    env = simpy.Environment()
    env.process(source(env))
    began = time.process_time()
    env.run()
    return 1e6 * (time.process_time() - began) / processes


def one(population: int, assignments: int, *, record: bool, overrides: dict[str, str]) -> dict:
    """Simulate one fleet and measure it."""
    scenario = load_scenario(SCENARIO, {"fleet.population": str(population), **overrides})
    rounds = -(-assignments // (scenario.server.buffer or 1))
    scenario = load_scenario(
        SCENARIO, {"fleet.population": str(population), "stop.rounds": str(rounds), **overrides}
    )
    began = time.perf_counter()
    made = build(scenario)
    built_s = time.perf_counter() - began
    gc.collect()
    bare = [bare_us()]
    with tempfile.TemporaryDirectory() as directory:
        watcher = Recorder(Path(directory), made.figures, lines=scenario.record.lines) if record else Tally()
        began, cpu_began = time.perf_counter(), time.process_time()
        _, virtual_s = asyncio.run(simulate(made, [watcher]))
        wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
        tally = watcher.tally if isinstance(watcher, Recorder) else watcher
    bare.append(bare_us())
    done = tally.events["dispatched"]
    return {
        "population": population,
        "assignments": done,
        "aggregated": tally.outcomes["aggregated"],
        "lines": tally.events.total(),
        "virtual_h": virtual_s / 3600,
        "build_s": built_s,
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "us_per_assignment": 1e6 * cpu_s / done,
        "over_bare_simpy": 1e6 * cpu_s / done / statistics.fmean(bare),
        "per_s": done / cpu_s,
        "per_s_wall": done / wall_s,
        "rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def in_a_process(population: int, options: argparse.Namespace) -> dict:
    """Measure one fleet in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.events", "--one", str(population)]
    command += ["--assignments", str(options.assignments)] + ["--record"] * options.record
    command += [part for item in options.set for part in ("--set", item)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--populations", default="10000,100000,1000000")
    parser.add_argument("--assignments", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--record", action="store_true", help="write the whole record")
    parser.add_argument("--set", action="append", default=[], help="change the scenario: key=value")
    parser.add_argument("--one", type=int, help="measure one population in this process")
    options = parser.parse_args()
    if options.one is not None:
        overrides = dict(item.split("=", 1) for item in options.set)
        print(json.dumps(one(options.one, options.assignments, record=options.record, overrides=overrides)))
        return
    sizes = [int(size) for size in options.populations.split(",")]
    rows = [in_a_process(size, options) for _ in range(options.repeats) for size in sizes]
    print("  devices  assignments  per cpu-s  us each  x SimPy  wall s  peak MB  build s")
    medians = []
    for size in sizes:
        own = [row for row in rows if row["population"] == size]
        each = statistics.median(row["us_per_assignment"] for row in own)
        medians.append(each)
        peak = max(row["rss_bytes"] for row in own)
        over = statistics.median(row["over_bare_simpy"] for row in own)
        wall = statistics.median(row["wall_s"] for row in own)
        print(
            f"{size:>9}{own[0]['assignments']:>13}{1e6 / each:>11.0f}{each:>9.1f}{over:>9.1f}{wall:>8.1f}"
            f"{peak / 1e6:>9.0f}{own[0]['build_s']:>9.1f}"
        )
    spread = max(medians) / min(medians) - 1.0
    print(f"time per assignment differs by {100 * spread:.0f} % over the sizes, aim {100 * AIM_SPREAD:.0f} %")
    print(
        json.dumps(
            {
                "figure": "events",
                "rows": rows,
                "spread": spread,
                "aim_per_s": AIM_PER_S,
                "aim_rss_bytes": AIM_RSS_BYTES,
                "aim_spread": AIM_SPREAD,
            }
        )
    )


if __name__ == "__main__":
    main()
