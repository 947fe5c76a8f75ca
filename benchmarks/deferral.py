"""What does training on demand save? Steps trained over steps aggregated, and wall time against eager.

python -m benchmarks.deferral [--repeats N]
"""

import argparse
import asyncio
import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path

from fedsim.experiment.build import build
from fedsim.experiment.record import Recorder
from fedsim.experiment.run import simulate
from fedsim.experiment.scenario import load_scenario

SCENARIO = Path(__file__).parents[1] / "scenarios" / "skewed_edge.yaml"
AIM_WALL, AIM_STEPS = 0.65, 1.0


@dataclasses.dataclass
class Counting:
    """Passes requests on and counts their steps."""

    inner: object
    steps: int = 0

    async def train(self, requests):
        self.steps += sum(request.assignment.steps for request in requests)
        return await self.inner.train(requests)


def one(overrides: dict[str, str], prefetch: str) -> dict:
    scenario = load_scenario(
        SCENARIO, {**overrides, "executor.kind": "inline", "executor.prefetch": prefetch}
    )
    made = build(scenario)
    counting = Counting(made.work.executor)
    made.work.executor = counting
    with tempfile.TemporaryDirectory() as directory:
        recorder = Recorder(Path(directory), made.figures)
        began, cpu_began = time.perf_counter(), time.process_time()
        asyncio.run(simulate(made, [recorder]))
        elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu_began
        recorder.close()
    outcomes = recorder.tally.outcomes
    return {
        "wall_s": elapsed,
        "cpu_s": cpu,
        "steps": counting.steps,
        "aggregated": outcomes["aggregated"] * scenario.training.local_steps,
        "assignments": sum(outcomes.values()),
        "lost": sum(outcomes.values()) - outcomes["aggregated"],
        "hash": recorder.record_hash,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    overrides = {
        "stop.rounds": "4",
        "server.over_selection": "2",
        "evaluation.every": "100000",
        "evaluation.held_out_examples": "1",
        "evaluation.generate": "0",
    }
    deferred, eager = [], []
    for _ in range(options.repeats):
        deferred.append(one(overrides, prefetch="none"))
        eager.append(one(overrides, prefetch="speculative"))
    assert len({run["hash"] for run in deferred + eager}) == 1, "the record depends on deferral"
    pairs = list(zip(deferred, eager, strict=True))
    ratio = statistics.median(a["wall_s"] / b["wall_s"] for a, b in pairs)
    cpu_ratio = statistics.median(a["cpu_s"] / b["cpu_s"] for a, b in pairs)
    first, other = deferred[0], eager[0]
    lost = first["lost"] / first["assignments"]
    print(f"{first['assignments']} assignments, {100 * lost:.0f} % of them lost; records identical")
    on_demand, at_once = (run["steps"] / run["aggregated"] for run in (first, other))
    print(f"steps trained over aggregated: deferred {on_demand:.2f}, eager {at_once:.2f}")
    print(f"wall {ratio:.2f}, cpu {cpu_ratio:.2f}, aim {AIM_WALL}")
    print(
        json.dumps(
            {
                "figure": "deferral",
                "lost": lost,
                "steps_ratio": on_demand,
                "aim_steps_ratio": AIM_STEPS,
                "wall_ratio": ratio,
                "cpu_ratio": cpu_ratio,
                "aim_wall_ratio": AIM_WALL,
                "repeats": options.repeats,
            }
        )
    )


if __name__ == "__main__":
    main()
