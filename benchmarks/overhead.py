"""What does the simulator cost on top of the training? A whole run against the bare loop of the same steps.

python -m benchmarks.overhead            # the figure: at least 120 s of steps a run
python -m benchmarks.overhead --quick    # a look in seconds, not a figure
"""

import argparse
import asyncio
import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from fedsim.experiment.build import Experiment, build
from fedsim.experiment.record import Recorder
from fedsim.experiment.run import simulate
from fedsim.experiment.scenario import Scenario, load_scenario
from fedsim.experiment.tasks import build_task, device_sets
from fedsim.learn.encode import collate, encode
from fedsim.learn.model import load_model
from fedsim.learn.peft_bridge import AdapterSlot
from fedsim.method.messages import TrainRequest

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


def bare_loop(scenario: Scenario, jobs: list) -> tuple[float, float]:
    """Forward, backward and optimizer; batches and adapters are ready before the clock starts."""
    made = build(scenario)
    loaded = load_model(scenario.model.base, scenario.model.device)
    slot, tokenizer = (
        AdapterSlot(loaded.model, tuple(layer.name for layer in made.shape.layers)),
        loaded.tokenizer,
    )
    batch_size, max_length = scenario.training.batch_size, scenario.task.max_length
    task = build_task(scenario, made.population.num_devices, device_sets(scenario, made.population))
    ready = []
    for request, payload in jobs:
        shard = encode(tokenizer, task.shard(request.assignment.client), max_length)
        order = [
            shard[(step * batch_size + k) % len(shard)]
            for step in range(request.assignment.steps)
            for k in range(batch_size)
        ]
        batches = [
            collate(order[step * batch_size : (step + 1) * batch_size], tokenizer.pad_token_id)
            for step in range(request.assignment.steps)
        ]
        ready.append((request, payload, batches))
    wall = cpu = 0.0
    for request, payload, batches in ready:
        with slot.loaded(payload.prefix, payload.tail, request.assignment.gate) as trainable:
            parameters = [factor for pair in trainable.values() for factor in pair]
            began = clocks()
            optimizer = torch.optim.AdamW(parameters, lr=request.assignment.learning_rate, weight_decay=0.0)
            for batch in batches:
                loss = slot.model(
                    input_ids=batch.input_ids,
                    attention_mask=batch.attention_mask,
                    labels=batch.labels,
                    use_cache=False,
                ).loss
                loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            wall_s, cpu_s = since(began)
            wall, cpu = wall + wall_s, cpu + cpu_s
    return wall, cpu


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
        loops.append(bare_loop(scenario, jobs))
    steps = sum(request.assignment.steps for request, _ in jobs)
    figure = {"figure": "overhead", "steps": steps, "repeats": repeats, "aim": AIM, "quick": options.quick}
    for index, name in enumerate(("wall", "cpu")):
        ratios = [run[index] / loop[index] for run, loop in zip(runs, loops, strict=True)]
        loop_s = statistics.median(loop[index] for loop in loops)
        middle = statistics.median(ratios)
        print(
            f"{name:<5} {steps} steps, bare loop {loop_s:6.1f} s, overhead {middle:.3f} "
            f"(min {min(ratios):.3f}, max {max(ratios):.3f}), aim {AIM}"
        )
        figure |= {f"{name}_ratio": middle, f"{name}_ratios": ratios, f"{name}_loop_s": loop_s}
    print(json.dumps(figure))


if __name__ == "__main__":
    main()
