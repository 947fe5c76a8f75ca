"""Small stand-ins for tests: a method without tensors, a fleet from a dictionary, prices of a toy model."""

from dataclasses import dataclass, field

import numpy as np

from fedsim.method.bundle import ClientMemory, Infeasible, Streaming
from fedsim.method.messages import Budget, DeviceReport, RankPlan
from fedsim.world.cost import Prices


def toy_prices(num_layers=2, base_memory=100.0, base_flops=1000.0):
    """One column costs 10 bytes, 10 bytes of memory received, 20 more trained, 40 and 20 FLOP."""
    ones = np.ones(num_layers)
    return Prices(
        layers=tuple(f"layer{index}" for index in range(num_layers)),
        down_bytes=np.full(num_layers, 10, dtype=np.int64),
        up_bytes=np.full(num_layers, 10, dtype=np.int64),
        tail_memory=10 * ones,
        train_memory=20 * ones,
        group=np.zeros(num_layers, dtype=np.int64),
        group_memory=np.array([5.0]),
        base_memory=base_memory,
        tail_flops=40 * ones,
        train_flops=20 * ones,
        base_flops=base_flops,
    )


@dataclass(frozen=True)
class ToyMethod:
    """Gives every layer the same rank: as many columns as bytes and memory allow; streams level by level."""

    name: str = "toy"
    cap: int = 8

    @property
    def streaming(self):
        return Streaming(self.stream)

    def stream(self, spectrum, prices, plan):
        levels = range(max(plan.total))
        return tuple(layer for level in levels for layer, rank in enumerate(plan.total) if level < rank)

    def allocate(self, spectrum, budgets, prices, fresh_rank, standings=None):
        return [self._plan(budget, prices, (0,) * len(prices.layers)) for budget in budgets]

    def replan(self, spectrum, budgets, prices, received, standings=None, fresh_rank=None):
        return [self._plan(budget, prices, there) for budget, there in zip(budgets, received, strict=True)]

    def gate(self, memory: ClientMemory | None, version: int) -> float:
        return 0.5

    def _plan(self, budget: Budget, prices: Prices, received):
        have = np.array(received)
        if budget.memory_bytes < prices.memory_bytes(received, [0] * len(received)):
            return Infeasible("memory")
        for rank in range(self.cap, 0, -1):
            total = tuple(int(r) for r in np.maximum(have, rank))
            for trained in range(rank, 0, -1):
                plan = RankPlan(total, (trained,) * len(total))
                new_bytes = prices.download_bytes(total) - prices.download_bytes(received)
                if (
                    new_bytes <= budget.download_bytes
                    and prices.memory_bytes(plan.total, plan.trained) <= budget.memory_bytes
                ):
                    return plan
        return Infeasible("no column")


@dataclass
class ToyFleet:
    """Everyone listed is online."""

    reports: dict[int, DeviceReport] = field(default_factory=dict)

    @property
    def num_devices(self):
        return len(self.reports)

    def online(self):
        return np.array(sorted(self.reports), dtype=np.int64)

    def is_idle(self, client):
        return client in self.reports

    def report(self, client):
        return self.reports[client]


def report(client, memory_bytes=1000.0, flops=1000.0, num_examples=10, latency_s=0.0):
    return DeviceReport(client, "phone", memory_bytes, flops, num_examples, latency_s)
