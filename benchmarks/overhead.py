"""What does the simulator cost on top of the training? A whole run against bare loops of the same steps.

python -m benchmarks.overhead            # the figure: at least 120 s of steps a run
python -m benchmarks.overhead --quick    # a look in seconds, not a figure

*pass* is fedsim's own pass over the same clients and nothing else; *peft* is what one would write by hand:
PEFT's layers, the model's loss, torch's AdamW.
"""

import argparse
import asyncio
import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path

from fedsim.experiment.build import Experiment, build
from fedsim.experiment.record import Recorder
from fedsim.experiment.run import simulate
from fedsim.experiment.scenario import Scenario, load_scenario
from fedsim.experiment.tasks import build_task, device_sets
from fedsim.learn.cohort import train_client
from fedsim.learn.encode import encode
from fedsim.learn.model import load_model
from fedsim.learn.peft_bridge import AdapterSlot
from fedsim.learn.train import LocalRun, TrainingSettings
from fedsim.method.messages import TrainRequest
from tests.peft_training import train_with_peft

SCENARIO = Path(__file__).parents[1] / "scenarios" / "skewed_edge.yaml"
AIM = 1.10


@dataclasses.dataclass
class Remembering:
    """Passes requests on, and keeps what the bare loop needs to do the same work."""

    inner: object
    store: object
    jobs: list

    async def train(self, requests: "list[TrainRequest]"):
        self.jobs += [(request, self.store.payload(request)) for request in requests]
        return await self.inner.train(requests)


def experiment(scenario: Scenario, jobs: list) -> Experiment:
    made = build(scenario)
    made.work.executor = Remembering(made.work.executor, made.work.aggregator, jobs)
    return made


def clocks() -> tuple[float, float]:
    """Wall and processor time; the second does not see what else the machine does."""
    return time.perf_counter(), time.process_time()


def since(began: tuple[float, float]) -> tuple[float, float]:
    wall, cpu = clocks()
    return wall - began[0], cpu - began[1]


def whole_run(scenario: Scenario, jobs: list) -> tuple[float, float]:
    made = experiment(scenario, jobs)
    with tempfile.TemporaryDirectory() as directory:
        recorder = Recorder(Path(directory), made.figures)
        began = clocks()
        asyncio.run(simulate(made, [recorder]))
        elapsed = since(began)
        recorder.close()
    return elapsed


def bare_loops(scenario: Scenario, jobs: list) -> dict[str, tuple[float, float]]:
    """The steps alone, client by client; shards and adapters are ready before a clock starts."""
    made = build(scenario)
    loaded = load_model(scenario.model.base, scenario.model.device)
    slot = AdapterSlot(loaded.model, tuple(layer.name for layer in made.shape.layers))
    max_length = scenario.task.max_length
    task = build_task(scenario, made.population.num_devices, device_sets(scenario, made.population))
    settings = TrainingSettings(scenario.training.batch_size, max_length)
    spent = {"pass": (0.0, 0.0), "peft": (0.0, 0.0)}
    for request, payload in jobs:
        asked = request.assignment
        shard = encode(loaded.tokenizer, task.shard(asked.client), max_length)
        run = LocalRun(asked.steps, asked.learning_rate, asked.gate, asked.seed)
        for name, train in (("pass", train_client), ("peft", train_with_peft)):
            began = clocks()
            train(slot, payload, shard, run=run, settings=settings, pad_id=loaded.tokenizer.pad_token_id)
            wall_s, cpu_s = since(began)
            spent[name] = spent[name][0] + wall_s, spent[name][1] + cpu_s
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=None)
    options = parser.parse_args()
    rounds, repeats = (2, options.repeats or 2) if options.quick else (12, options.repeats or 5)
    scenario = load_scenario(
        SCENARIO,
        {
            "executor.kind": "inline",
            "stop.rounds": str(rounds),
            "evaluation.every": "100000",
            "evaluation.held_out_examples": "1",
            "evaluation.generate": "0",
        },
    )
    runs, loops, jobs = [], [], []
    for _ in range(repeats):
        jobs = []
        runs.append(whole_run(scenario, jobs))
        loops.append(bare_loops(scenario, jobs))
    steps = sum(request.assignment.steps for request, _ in jobs)
    figure = {"figure": "overhead", "steps": steps, "repeats": repeats, "aim": AIM, "quick": options.quick}
    for index, clock in enumerate(("wall", "cpu")):
        for name in ("pass", "peft"):
            ratios = [run[index] / loop[name][index] for run, loop in zip(runs, loops, strict=True)]
            loop_s = statistics.median(loop[name][index] for loop in loops)
            middle = statistics.median(ratios)
            print(
                f"{clock:<5} {steps} steps, bare {name} {loop_s:6.1f} s, a run costs {middle:.3f} of it "
                f"(min {min(ratios):.3f}, max {max(ratios):.3f}), aim {AIM}"
            )
            figure[f"{clock}_over_{name}"] = ratios
    print(json.dumps(figure))


if __name__ == "__main__":
    main()
