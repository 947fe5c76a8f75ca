"""What does a second worker bring? The same training by one worker and by two, one thread each, in turn.

Process start, model load and evaluation are left out: the clock runs while requests are trained, through the
executor of a run, payloads and answers included. *cpu* is what two idle cores would give at best: the
processor time of one worker and its parent over half of that of two and theirs.

python -m benchmarks.workers [--pairs N] [--clients N] [--steps N]
"""

import argparse
import asyncio
import dataclasses
import hashlib
import json
import os
import statistics
import time
from pathlib import Path

from fedsim.experiment.build import build
from fedsim.experiment.scenario import load_scenario
from fedsim.learn.freeze import freeze
from fedsim.method.messages import Assignment, RankPlan, TrainRequest

SCENARIO = Path(__file__).parents[1] / "scenarios" / "skewed_edge.yaml"
AIM = 1.8


def requests(num_layers: int, clients: int, steps: int) -> list[TrainRequest]:
    """Clients of three kinds of plans, as a skewed fleet has."""
    found = []
    for client in range(clients):
        trained, total = ((2, 8), (4, 16), (8, 32))[client % 3]
        plan = RankPlan((total,) * num_layers, (trained,) * num_layers)
        assignment = Assignment(
            id=client,
            client=client,
            version=0,
            offered=plan,
            steps=steps,
            seed=client,
            gate=1.0,
            learning_rate=1e-2,
            dispatched_at_s=0.0,
            deadline_at_s=float("inf"),
        )
        found.append(TrainRequest(assignment, plan))
    return found


def digest(answers) -> str:
    """Hash every bit that was learned, layer by layer."""
    found = hashlib.sha256()
    for answer in answers:
        layers = sorted(answer.change.items())
        found.update(freeze([answer.assignment, answer.loss, [[name, pair] for name, pair in layers]]))
    return found.hexdigest()


def cpu_s(pids: tuple[int, ...]) -> float:
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(times[11]) + int(times[12]) for times in fields) / os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass
class Crew:
    """An executor that is warm."""

    experiment: object
    asked: list[TrainRequest]

    async def timed(self) -> tuple[float, float, str]:
        """Wall time, processor time, and a hash of what was learned."""
        pids = getattr(self.experiment.engine.trainer, "pids", ())
        began, cpu_began = time.perf_counter(), time.process_time() + cpu_s(pids)
        answers = await self.experiment.engine.trainer.train(self.asked)
        elapsed, cpu = time.perf_counter() - began, time.process_time() + cpu_s(pids) - cpu_began
        return elapsed, cpu, digest(answers)


async def crew(kind: str, workers: int, options: argparse.Namespace) -> Crew:
    changes = {"executor.kind": kind, "executor.workers": str(workers)}
    experiment = await asyncio.to_thread(build, load_scenario(SCENARIO, changes))
    made = Crew(experiment, requests(len(experiment.shape.layers), options.clients, options.steps))
    await experiment.engine.trainer.train(requests(len(experiment.shape.layers), 2 * workers, 1))
    return made


async def measure(options: argparse.Namespace) -> None:
    one, two = await crew("workers", 1, options), await crew("workers", 2, options)
    inline = await crew("inline", 1, options)
    ratios, cpu_ratios, hashes = [], [], set()
    try:
        for _ in range(options.pairs):
            (alone, cpu_one, first), (both, cpu_two, second) = await one.timed(), await two.timed()
            hashes |= {first, second}
            ratios.append(alone / both)
            cpu_ratios.append(2.0 * cpu_one / cpu_two)
            print(f"one worker {alone:.2f} s, two {both:.2f} s: {alone / both:.2f} x", flush=True)
        hashes.add((await inline.timed())[2])
    finally:
        for made in (one, two, inline):
            await made.experiment.close()
    assert len(hashes) == 1, "answers depend on the number of workers"
    ratio = statistics.median(ratios)
    cpu_ratio = statistics.median(cpu_ratios)
    print(f"two workers over one: {ratio:.2f} x, cpu {cpu_ratio:.2f} x (aim {AIM})")
    print("answers identical, and those of inline too")
    print(
        json.dumps(
            {
                "figure": "workers",
                "ratio": ratio,
                "ratios": ratios,
                "cpu_ratio": cpu_ratio,
                "cpu_ratios": cpu_ratios,
                "aim": AIM,
                "pairs": options.pairs,
                "clients": options.clients,
                "steps": options.steps,
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10)
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
