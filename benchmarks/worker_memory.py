"""Do worker processes share the base? Peak memory of a run with one and with two workers, and with none.

Pages that several processes map count once: the figure is the proportional set size (PSS) of Linux, summed
over the run's process and all it has started, at its highest. It is sampled every 50 ms. The base dominates:
a Llama of 113 million parameters with random weights in float32, or any model that fedsim can load. What one
worker needs to train beyond the base is given apart, as PyTorch's own count of its allocations.

python -m benchmarks.worker_memory [--base FOLDER] [--repeats N]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from fedsim.learn.model import load_model, model_shape
from fedsim.learn.model_files import resolve_source
from fedsim.learn.peft_bridge import AdapterSlot
from fedsim.learn.probe import Point, probe

SCENARIO = Path(__file__).parents[1] / "scenarios" / "skewed_edge.yaml"
AIM = 1.3
EVERY_S = 0.05
BATCH, LENGTH = 1, 64
OVERRIDES = {
    "model.targets": "attention",
    "method.options.rank_cap": "8",
    "stop.rounds": "1",
    "server.cohort": "6",
    "training.local_steps": "3",
    "training.batch_size": str(BATCH),
    "task.max_length": str(LENGTH),
    "evaluation.held_out_examples": "2",
    "evaluation.generate": "0",
}


def random_base(folder: Path) -> Path:
    """Write a model of which little is known and much must be held."""
    source = resolve_source("embedded")
    tokenizer = AutoTokenizer.from_pretrained(source)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tree(root: int) -> list[int]:
    """Ids of a process and of all that it has started, directly or not."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [root]
    for pid in found:
        found += parents.get(pid, [])
    return found


def pss_bytes(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:  # it has just ended
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), 0)


def peak_bytes(command: list[str]) -> int:
    """Run a command and watch it."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    over, peak = threading.Event(), 0
    waiting = threading.Thread(target=lambda: (process.wait(), over.set()))
    waiting.start()
    while not over.wait(EVERY_S):
        peak = max(peak, sum(map(pss_bytes, tree(process.pid))))
    waiting.join()
    if process.returncode:
        raise SystemExit(f"the run ended with {process.returncode}")
    return peak


def one_run(base: str, executor: dict[str, str]) -> tuple[int, str]:
    """Peak of a run, and the hash of its record."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "run"
        changes = OVERRIDES | executor | {"model.base": base}
        settings = [part for key, value in changes.items() for part in ("--set", f"{key}={value}")]
        command = [sys.executable, "-m", "fedsim", "run", str(SCENARIO), "--out", str(out), "--quiet"]
        peak = peak_bytes([*command, "--no-report", *settings])
        return peak, json.loads((out / "summary.json").read_text())["record_sha256"]


def training_bytes(base: str) -> float:
    """What training allocates beyond the weights, at the largest ranks of its plans."""
    loaded = load_model(base, "cpu")
    layers = model_shape(loaded, "attention").layers
    weights = sum(weight.numel() * weight.element_size() for weight in loaded.model.parameters())
    slot = AdapterSlot(loaded.model, [layer.name for layer in layers])
    return probe(loaded, slot, layers, Point(8, 8, BATCH, LENGTH), repeats=1).peak_bytes - weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", help="Folder or name of a model; a random one by default.")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    kinds = {
        "inline": {"executor.kind": "inline"},
        "one": {"executor.kind": "workers", "executor.workers": "1"},
        "two": {"executor.kind": "workers", "executor.workers": "2"},
    }
    peaks: dict[str, list[int]] = {name: [] for name in kinds}
    hashes = set()
    with tempfile.TemporaryDirectory() as scratch:
        base = options.base or str(random_base(Path(scratch)))
        for _ in range(options.repeats):
            for name, executor in kinds.items():
                peak, digest = one_run(base, executor)
                peaks[name].append(peak)
                hashes.add(digest)
        training = training_bytes(base)
    assert len(hashes) == 1, "the record depends on the executor"
    inline, one, two = (statistics.median(peaks[name]) for name in kinds)
    print(f"peak PSS: inline {inline / 1e9:.2f} GB, one worker {one / 1e9:.2f}, two {two / 1e9:.2f} GB")
    print(f"training beyond the base, per worker: {training / 1e9:.2f} GB; records identical")
    alone = (two - training) / one
    print(f"two over one {two / one:.2f}, without the second's training {alone:.2f} (aim {AIM})")
    print(
        json.dumps(
            {
                "figure": "worker_memory",
                "inline_bytes": inline,
                "one_bytes": one,
                "two_bytes": two,
                "training_bytes": training,
                "ratio": two / one,
                "aim": AIM,
                "repeats": options.repeats,
            }
        )
    )


if __name__ == "__main__":
    main()
