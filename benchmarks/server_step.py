"""How fast is a server step? Aggregation and the new basis from stacked factors, against dense matrices.

``python -m benchmarks.server_step`` (minutes: the dense side decomposes d x d), ``--quick`` (seconds). The
figure is dense over factored time, A B A B, medians, one layer, 16 clients of rank 8 to 16.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch

from fedsim.lora.basis import balanced
from fedsim.lora.factors import Factors, add, dense
from fedsim.method.aggregate import aggregate, received_columns
from fedsim.method.bundle import BasisState
from fedsim.method.messages import RankPlan, Update
from fedsim.method.spectral import initial_state
from fedsim.world.shape import LayerShape

CLIENTS, RANK_CAP = 16, 96


def cohort(size: int) -> tuple[BasisState, list[Update], list[float]]:
    generator = torch.Generator().manual_seed(0)

    def random(rank: int, fall: float) -> Factors:
        shrink = fall ** torch.arange(rank, dtype=torch.float32)
        return Factors(
            lora_a=shrink[:, None] * torch.randn(rank, size, generator=generator) / size**0.5,
            lora_b=torch.randn(size, rank, generator=generator) / size**0.5,
        )

    shape = LayerShape("layer", size, size, "input")
    state = initial_state((shape,), 0, {"layer": random(64, 0.97)}, max_rank=RANK_CAP)
    updates = []
    for index in range(CLIENTS):
        rank = 8 + index % 9
        step = random(rank, 1.0)
        change = Factors(step.lora_a * 0.05, step.lora_b * 0.05)
        updates.append(Update(index, index, 0, RankPlan((48,), (rank,)), {"layer": change}, 1, 0.0))
    return state, updates, [1.0 / CLIENTS] * CLIENTS


def dense_step(state: BasisState, updates: list[Update], weights: list[float]) -> torch.Tensor:
    """Form every matrix: W + sum of w_i (P'Q' - PQ), then a full decomposition; return singular values."""
    shape = state.shapes[0]
    whole = dense(balanced(state.basis["layer"]))
    for update, weight in zip(updates, weights, strict=True):
        before = received_columns(state, shape, update.plan.trained[0])
        assert update.change is not None
        whole = whole + weight * (dense(add(before, update.change["layer"])) - dense(before))
    return torch.linalg.svd(whole, full_matrices=False)[1]


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 2048, 4096])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if args.quick:
        args.sizes, args.repeats = [256, 512], 3
    torch.set_num_threads(args.threads)
    rows = [measure(size, args.repeats) for size in args.sizes]
    print(f"{'d':>6} {'factored, s':>12} {'dense, s':>10} {'ratio':>8} {'worst sv error':>15}")
    for row in rows:
        times = f"{row['d']:>6} {row['factored_s']:>12.4f} {row['dense_s']:>10.2f}"
        print(f"{times} {row['ratio']:>8.0f} {row['error']:>15.1e}")
    print(
        json.dumps({"figure": "server_step", "repeats": args.repeats, "threads": args.threads, "rows": rows})
    )


def measure(size: int, repeats: int) -> dict[str, float]:
    state, updates, weights = cohort(size)

    def factored() -> BasisState:
        return aggregate(state, updates, weights, max_rank=RANK_CAP)

    got = factored().basis["layer"].sigma
    thin, thick = [], []
    for _ in range(repeats):
        thin.append(seconds(factored))
        thick.append(seconds(lambda: dense_step(state, updates, weights)))
    expected = dense_step(state, updates, weights).double()[: len(got)]
    return {
        "d": size,
        "factored_s": statistics.median(thin),
        "dense_s": statistics.median(thick),
        "ratio": statistics.median(thick) / statistics.median(thin),
        "error": float(((got - expected) / expected[0]).abs().max()),
    }


if __name__ == "__main__":
    main()
