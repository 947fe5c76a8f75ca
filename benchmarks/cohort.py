"""What does a batched pass save? K clients of different ranks in one pass over K passes, one thread.

python -m benchmarks.cohort                      # the figure: the embedded model, K = 2, 4, 8, 16
python -m benchmarks.cohort --shape 10m --steps 2 --clients 2,4       # random weights of another shape
python -m benchmarks.cohort --against peft --clients 1                # what the pass saves one client
python -m benchmarks.cohort --profile --clients 4                     # where the time of both sides goes

Both sides train the same clients for the same steps from the same start, in turn. Wall and processor time are
both told; the second does not see what else the machine does.
"""

import argparse
import json
import statistics
import time

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, LlamaForCausalLM

from fedsim.learn.cohort import Member, train_client, train_cohort
from fedsim.learn.data import EmbeddedTask
from fedsim.learn.encode import encode
from fedsim.learn.model import LoadedModel, load_model, model_shape
from fedsim.learn.peft_bridge import AdapterSlot
from fedsim.learn.train import LocalRun, TrainingSettings
from fedsim.lora.factors import Factors, columns
from fedsim.method.bundle import Payload
from tests.peft_training import train_with_peft

AIM = 1.0
APART = {"one": train_client, "peft": train_with_peft}
SHAPES = {  # hidden, intermediate, blocks, heads, key-value heads, vocabulary
    "10m": (256, 704, 8, 8, 8, 4096),
    "135m": (576, 1536, 30, 9, 3, 49152),  # SmolLM2-135M
}


def loaded_model(shape: str) -> LoadedModel:
    loaded = load_model("embedded", "cpu")
    if shape == "embedded":
        return loaded
    hidden, intermediate, blocks, heads, shared, vocabulary = SHAPES[shape]
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        num_key_value_heads=shared,
        vocab_size=vocabulary,
        tie_word_embeddings=True,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config).requires_grad_(requires_grad=False).eval()
    return LoadedModel(shape, model, loaded.tokenizer, torch.device("cpu"))


class Bench:
    """Sixteen clients: ranks from 4 to 16, half of them trained, and shards of the embedded task."""

    def __init__(self, shape: str, batch_size: int, max_length: int, steps: int) -> None:
        loaded = loaded_model(shape)
        self.train = train_client
        self.layers = model_shape(loaded, "all-linear").layers
        self.slot = AdapterSlot(loaded.model, [layer.name for layer in self.layers])
        self.settings = TrainingSettings(batch_size, max_length)
        task = EmbeddedTask(num_clients=16, seed=1, mean_examples=120, held_out_size=8)
        self.members = [
            Member(
                self._payload(client),
                encode(loaded.tokenizer, task.shard(client), max_length),
                LocalRun(steps, 1e-3, 0.5, client),
            )
            for client in range(16)
        ]

    def _payload(self, client: int) -> Payload:
        generator = torch.Generator().manual_seed(client)
        prefix, tail = {}, {}
        for index, layer in enumerate(self.layers):
            rank = 4 + (5 * client + 3 * index) % 13
            whole = Factors(
                lora_a=0.05 * torch.randn(rank, layer.d_in, generator=generator),
                lora_b=0.05 * torch.randn(layer.d_out, rank, generator=generator),
            )
            prefix[layer.name] = columns(whole, 0, rank // 2)
            tail[layer.name] = columns(whole, rank // 2, rank)
        return Payload(prefix, tail)

    def apart(self, clients: int) -> list[float]:
        return [
            self.train(self.slot, one.payload, one.shard, run=one.run, settings=self.settings, pad_id=0).loss
            for one in self.members[:clients]
        ]

    def together(self, clients: int) -> list[float]:
        return [
            outcome.loss
            for outcome in train_cohort(self.slot, self.members[:clients], settings=self.settings, pad_id=0)
        ]


def timed(work: "object", clients: int) -> tuple[float, float, list[float]]:
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    losses = work(clients)
    return time.perf_counter() - wall_s, time.process_time() - cpu_s, losses


def compare(bench: Bench, clients: int, repeats: int, steps: int) -> dict[str, object]:
    ratios, cpu_ratios, together_s, apart_s, furthest = [], [], [], [], 0.0
    for _ in range(repeats):
        alone, alone_cpu, expected = timed(bench.apart, clients)
        joint, joint_cpu, found = timed(bench.together, clients)
        ratios.append(alone / joint)
        cpu_ratios.append(alone_cpu / joint_cpu)
        apart_s.append(alone / clients / steps)
        together_s.append(joint / clients / steps)
        furthest = max(furthest, *(abs(a - b) for a, b in zip(expected, found, strict=True)))
    return {
        "clients": clients,
        "ratio": statistics.median(ratios),
        "least": min(ratios),
        "most": max(ratios),
        "cpu_ratio": statistics.median(cpu_ratios),
        "apart_step_s": statistics.median(apart_s),
        "together_step_s": statistics.median(together_s),
        "loss_difference": furthest,
    }


def show_profile(bench: Bench, clients: int) -> None:
    for name, work in (("K passes", bench.apart), ("one pass", bench.together)):
        with profile(activities=[ProfilerActivity.CPU]) as found:
            work(clients)
        print(name)
        print(
            found.key_averages().table(sort_by="self_cpu_time_total", row_limit=14, max_name_column_width=40)
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=("embedded", *SHAPES), default="embedded")
    parser.add_argument("--clients", default="2,4,8,16")
    parser.add_argument("--against", choices=tuple(APART), default="one")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(options.shape, options.batch_size, options.max_length, options.steps)
    bench.train = APART[options.against]
    bench.apart(1), bench.together(1)
    if options.profile:
        show_profile(bench, int(options.clients.rpartition(",")[2]))
        return
    rows = []
    for clients in map(int, options.clients.split(",")):
        row = compare(bench, clients, options.repeats, options.steps)
        rows.append(row)
        print(
            f"K {clients:>2}: {row['ratio']:.2f} x as fast (from {row['least']:.2f} to {row['most']:.2f}; "
            f"cpu {row['cpu_ratio']:.2f}), {1e3 * row['apart_step_s']:.0f} ms a step alone, "
            f"{1e3 * row['together_step_s']:.0f} ms together, losses differ by {row['loss_difference']:.1e}",
            flush=True,
        )
    tokens = options.batch_size * options.max_length
    print(
        json.dumps(
            {
                "figure": "cohort",
                "against": options.against,
                "shape": options.shape,
                "tokens": tokens,
                "rows": rows,
                "aim": AIM,
            }
        )
    )


if __name__ == "__main__":
    main()
