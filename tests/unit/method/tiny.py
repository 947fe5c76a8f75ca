"""One layer small enough to compute by hand, and cohorts of clients on it."""

import torch

from fedsim.lora.factors import Factors, dense
from fedsim.method.messages import RankPlan, Update
from fedsim.world.shape import LayerShape

LAYER = LayerShape("q", 3, 2, "q")
SHAPES = (LAYER,)


def pair(lora_b, lora_a):
    """Factors from nested lists: ``lora_b`` (d_out x r) times ``lora_a`` (r x d_in)."""
    return Factors(lora_a=torch.tensor(lora_a, dtype=torch.float32), lora_b=torch.tensor(lora_b).float())


def answer(method, state, number, after, total=None, examples=1):
    """The update of a client whose factors are `after` when it has trained all its columns."""
    rank = after.rank
    plan = RankPlan((rank if total is None else total,), (rank,))
    start = received(method, state, plan, number)
    change = Factors(lora_a=after.lora_a - start.lora_a, lora_b=after.lora_b - start.lora_b)
    return Update(number, number, state.version, plan, {"q": change}, examples, 0.0)


def received(method, state, plan, number):
    from fedsim.method.bundle import column_seed

    return method.redistribute(state, plan, column_seed(state, number)).prefix["q"]


def product(method, state):
    """The dense global update."""
    return dense(method.export(state)["q"])


def combine(method, state, updates, weights):
    return method.aggregate(state, updates, weights, {state.version: state})
