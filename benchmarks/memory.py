"""Does memory grow with the clients that take part? Peak RSS of a run with 10 and with 1,000, same cohort.

Each run is a process of its own, with real training in it (inline executor), and tells the most that it ever
held. Ten are asked per round, round robin, so that all devices that can hold the model take part: of a fleet
of some ten, again and again, or of one of some thousand, each once. The same rounds, with one local step each
and small ranks: what counts is what stays behind.

python -m benchmarks.memory [--pairs N] [--rounds N]
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.worker_memory import SCENARIO

AIM = 1.1
COHORT = 10
FLEET = 13
"""Devices for each ten that can hold the model."""


def overrides(clients: int, rounds: int) -> dict[str, str]:
    return {
        "executor.kind": "inline",
        "fleet.population": str(clients),
        "fleet.availability": "null",
        "fleet.availability_policy": "always",
        "server.select": "round_robin",
        "server.cohort": str(COHORT),
        "server.over_selection": "1",
        "training.local_steps": "1",
        "training.batch_size": "4",
        "model.targets": "attention",
        "method.options.rank_cap": "8",
        "stop.rounds": str(rounds),
        "stop.hours": "null",
        "evaluation.every": "100000",
        "evaluation.held_out_examples": "8",
        "evaluation.generate": "0",
    }


def child(clients: int, rounds: int) -> None:
    """Run, and tell the peak."""
    import fedsim

    with tempfile.TemporaryDirectory() as scratch:
        scenario = fedsim.load_scenario(SCENARIO, overrides(clients, rounds))
        result = fedsim.run(scenario, Path(scratch) / "run", report=False)
        lines = (result.directory / "events.jsonl").read_text().splitlines()
        took_part = {line["client"] for line in map(json.loads, lines) if line["event"] == "settled"}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"peak": peak, "took_part": len(took_part), "wall_s": result.wall_s}))


def peak_of(clients: int, rounds: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.memory", "--child", str(clients), "--rounds", str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    print(f"{told['took_part']:>5} clients, {rounds} rounds: {told['peak'] / 1e6:.0f} MB", flush=True)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.rounds)
        return
    pairs = [
        # The same number of rounds, so that only who takes part differs.
        (peak_of(FLEET, options.rounds), peak_of(FLEET * options.rounds, options.rounds))
        for _ in range(options.pairs)
    ]
    ratio = statistics.median(many["peak"] / few["peak"] for few, many in pairs)
    few, many = pairs[0]
    print(f"peak RSS, {many['took_part']} clients over {few['took_part']}: {ratio:.3f} (aim {AIM})")
    print(
        json.dumps(
            {
                "figure": "memory",
                "ratio": ratio,
                "few": [few for few, _ in pairs],
                "many": [many for _, many in pairs],
                "aim": AIM,
                "pairs": options.pairs,
            }
        )
    )


if __name__ == "__main__":
    main()
