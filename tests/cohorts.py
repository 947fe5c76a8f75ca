"""Small models, adapters, prices and cohorts for tests of the mathematics."""

import torch

from fedsim.lora.factors import Adapter, Factors, zeros
from fedsim.method.bundle import Method, State
from fedsim.method.messages import Budget, RankPlan, Update
from fedsim.wire import WireDtype
from fedsim.world.cost import Prices, Workload, roofline
from fedsim.world.shape import LayerShape, ModelShape

SHAPES = (
    LayerShape("block.0.q", 24, 24, "0.qkv"),
    LayerShape("block.0.k", 24, 12, "0.qkv"),
    LayerShape("block.0.up", 24, 40, "0.up"),
    LayerShape("block.0.down", 40, 24, "0.down"),
)
AMPLE = Budget(1e12, 1e12, 1e12, 1e9, 1e9, 1e9)


def prices(shapes: tuple[LayerShape, ...] = SHAPES, wire_dtype: WireDtype = "float32") -> Prices:
    model = ModelShape("toy", shapes, 10_000, 9_000, 1, 24, 40, 4, 64)
    return roofline(model, Workload(2, 8, 3, wire_dtype))


def factors(d_in: int, d_out: int, rank: int, seed: int, dtype: torch.dtype = torch.float32) -> Factors:
    generator = torch.Generator().manual_seed(seed)
    return Factors(
        lora_a=torch.randn(rank, d_in, generator=generator, dtype=dtype),
        lora_b=torch.randn(d_out, rank, generator=generator, dtype=dtype),
    )


def decaying_adapter(rank: int = 10, seed: int = 0) -> dict[str, Factors]:
    """An adapter whose singular values fall by about a third per column."""
    result = {}
    for index, layer in enumerate(SHAPES):
        raw = factors(layer.d_in, layer.d_out, rank, seed + index)
        fall = 0.7 ** torch.arange(rank, dtype=torch.float32)
        result[layer.name] = Factors(lora_a=raw.lora_a * fall[:, None], lora_b=raw.lora_b)
    return result


def plan(total: int, trained: int, layers: int = len(SHAPES)) -> RankPlan:
    return RankPlan((total,) * layers, (trained,) * layers)


def update(number: int, version: int, ranks: RankPlan, change: Adapter) -> Update:
    return Update(number, number, version, ranks, change, num_examples=1, loss=0.0)


def zero_change(method: Method, state: State, ranks: RankPlan) -> dict[str, Factors]:
    """What a client uploads that trains with learning rate zero."""
    prefix = method.redistribute(state, ranks, 0).prefix
    return {name: zeros(pair.d_in, pair.d_out, pair.rank) for name, pair in prefix.items() if pair.rank}


def random_change(ranks: RankPlan, seed: int, scale: float = 0.1) -> dict[str, Factors]:
    """A change of every trained prefix."""
    result = {}
    for index, (layer, rank) in enumerate(zip(SHAPES, ranks.trained, strict=True)):
        if rank:
            raw = factors(layer.d_in, layer.d_out, rank, 1000 * seed + index)
            result[layer.name] = Factors(lora_a=raw.lora_a * scale, lora_b=raw.lora_b * scale)
    return result
