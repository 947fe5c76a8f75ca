"""How fast are plans made? Vectorised water-filling against the naive greedy, at Llama-2-7B layer shapes.

``python -m benchmarks.allocator`` (a minute), ``--quick`` (seconds). The figure is time per client, naive
over vectorised, A B A B, medians.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable

import numpy as np

from fedsim.method.allocate import AllocationRule, allocate, column_energies, offer
from fedsim.method.ledger import open_ledger
from fedsim.method.messages import Budget, RankPlan
from fedsim.method.reference import naive_greedy, naive_plan
from fedsim.method.walk import prefix_ranks
from fedsim.world.cost import Prices, Workload, roofline
from fedsim.world.shape import LayerShape, ModelShape

MODULES = {"q": (4096, 4096), "k": (4096, 4096), "v": (4096, 4096), "o": (4096, 4096)}
MODULES |= {"gate": (4096, 11008), "up": (4096, 11008), "down": (11008, 4096)}
GROUP = {"q": "qkv", "k": "qkv", "v": "qkv", "o": "o", "gate": "mlp", "up": "mlp", "down": "down"}


def llama_2_7b(num_blocks: int) -> ModelShape:
    layers = tuple(
        LayerShape(f"layers.{block:02d}.{name}", d_in, d_out, f"{block:02d}.{GROUP[name]}")
        for block in range(num_blocks)
        for name, (d_in, d_out) in MODULES.items()
    )
    return ModelShape("llama-2-7b", layers, 6_738_415_616, 6_607_077_376, num_blocks, 4096, 11008, 32, 32000)


def spectrum_of(prices: Prices, rank_cap: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    falls, heights = (
        generator.uniform(0.9, 0.98, len(prices.layers)),
        generator.uniform(1, 5, len(prices.layers)),
    )
    return {
        name: height * fall ** np.arange(rank_cap)
        for name, fall, height in zip(prices.layers, falls, heights, strict=True)
    }


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=1500)
    parser.add_argument("--blocks", type=int, default=32)
    parser.add_argument("--rank-cap", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--naive-clients", type=int, default=5, help="naive plans timed and compared per repeat"
    )
    parser.add_argument("--overflow", choices=["skip", "break"], default="skip")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if args.quick:
        args.clients, args.blocks, args.rank_cap, args.repeats, args.naive_clients = 200, 4, 16, 3, 3
    prices = roofline(llama_2_7b(args.blocks), Workload(4, 512, 20, "float16"))
    spectrum = spectrum_of(prices, args.rank_cap)
    figures = {**bytes_only(args, prices, spectrum), **three_budgets(args, prices, spectrum)}
    print(f"{len(prices.layers)} layers, rank cap {args.rank_cap}, {args.clients} distinct budgets")
    for name, value in figures.items():
        print(f"  {name:<44} {value:>14,.4f}")
    print(json.dumps({"figure": "allocator", **vars(args), **figures}))


def bytes_only(args: argparse.Namespace, prices: Prices, spectrum: dict[str, np.ndarray]) -> dict[str, float]:
    rule = AllocationRule(overflow=args.overflow, rank_cap=args.rank_cap, initial_rank=0)
    skip = args.overflow == "skip"
    whole = int(prices.down_bytes.sum()) * args.rank_cap
    limits = np.unique(np.random.default_rng(1).integers(whole // 16, whole, 2 * args.clients))[
        : args.clients
    ]
    limits = np.random.default_rng(2).permutation(limits)
    budgets = [Budget(float(limit), math.inf, math.inf, 1e9, 1e9, 1e12) for limit in limits]
    energies = [energy.tolist() for energy in column_energies(spectrum, prices, rule)]
    cost = prices.down_bytes.tolist()

    def batch() -> np.ndarray:
        return prefix_ranks(offer(spectrum, prices, rule), prices.down_bytes, limits, skip=skip)

    def naive(index: int) -> tuple[int, ...]:
        return naive_greedy(energies, cost, int(limits[index]), skip=skip, names=prices.layers)

    ranks, plans = batch(), allocate(spectrum, budgets, prices, None, rule)
    chosen = np.linspace(0, len(limits) - 1, args.naive_clients * args.repeats).astype(int).tolist()
    fast, whole_call, slow, found = [], [], [], []
    for repeat in range(args.repeats):
        fast.append(seconds(batch))
        for index in chosen[repeat :: args.repeats]:
            slow.append(seconds(lambda index=index: found.append(naive(index))))
            assert found[-1] == tuple(ranks[index].tolist())
            assert plans[index] == RankPlan(found[-1], found[-1])
        whole_call.append(seconds(lambda: allocate(spectrum, budgets, prices, None, rule)))
    per_client = statistics.median(fast) / len(limits)
    return {
        "batch of ranks, ms": 1e3 * statistics.median(fast),
        "allocate() with plan objects, ms": 1e3 * statistics.median(whole_call),
        "naive, ms per client": 1e3 * statistics.median(slow),
        "ratio per client": statistics.median(slow) / per_client,
        "ratio per client, allocate()": statistics.median(slow) / statistics.median(whole_call) * len(limits),
        "naive plans compared, all identical": len(chosen),
    }


def three_budgets(
    args: argparse.Namespace, prices: Prices, spectrum: dict[str, np.ndarray]
) -> dict[str, float]:
    """Memory and time bind as well: one walk per distinct budget."""
    rule = AllocationRule(overflow=args.overflow, rank_cap=args.rank_cap)
    generator = np.random.default_rng(3)
    room = float(prices.train_memory.sum() + prices.tail_memory.sum()) * args.rank_cap
    budgets = [
        Budget(
            float(prices.down_bytes.sum()) * args.rank_cap * share,
            prices.base_memory + room * memory,
            prices.base_flops / 1e13 * slack,
            2e8,
            5e7,
            1e13,
        )
        for share, memory, slack in generator.uniform((0.1, 0.1, 1.2), (1.0, 0.6, 3.0), (args.clients, 3))
    ]
    order, clients = offer(spectrum, prices, rule), max(1, args.clients // 10)

    def naive(index: int) -> None:
        found = naive_plan(
            order, open_ledger(budgets[index], prices), 8, rule.train_reserve, skip=rule.overflow == "skip"
        )
        plan = plans[index]
        assert found == ((plan.total, plan.trained) if isinstance(plan, RankPlan) else None)

    plans = allocate(spectrum, budgets[:clients], prices, None, rule)
    fast, slow = [], []
    for repeat in range(args.repeats):
        fast.append(seconds(lambda: allocate(spectrum, budgets[:clients], prices, None, rule)) / clients)
        slow.append(seconds(lambda repeat=repeat: naive(repeat)))
    return {
        "three budgets, ms per client": 1e3 * statistics.median(fast),
        "three budgets, naive walk, ms per client": 1e3 * statistics.median(slow),
        "three budgets, clients that get a plan": sum(isinstance(plan, RankPlan) for plan in plans) / clients,
    }


if __name__ == "__main__":
    main()
