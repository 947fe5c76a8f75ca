"""A method for tests: dense matrices, averaged and decomposed again; every client sees the whole basis."""

import torch

from fedsim.lora.basis import balanced, compact_svd, zero_basis
from fedsim.lora.factors import Factors, columns, dense, moved, pad
from fedsim.method.bundle import BasisState, Method, Payload
from fedsim.method.messages import Assignment, RankPlan, TrainRequest

MAX_RANK = 16


def init(shapes, seed, adapter):
    adapter = adapter or {}
    basis = {
        s.name: compact_svd(adapter[s.name]) if s.name in adapter else zero_basis(s.d_in, s.d_out)
        for s in shapes
    }
    return BasisState(0, basis, shapes, seed)


def redistribute(state, plan, seed):
    prefix, tail = {}, {}
    for shape, total, trained in zip(state.shapes, plan.total, plan.trained, strict=True):
        factors = balanced(state.basis[shape.name])
        if factors.rank < total:
            generator = torch.Generator().manual_seed(state.seed + len(shape.name))
            fresh = torch.randn(total, shape.d_in, generator=generator) / shape.d_in**0.5
            padded = pad(factors, total)
            fresh[: factors.rank] = factors.lora_a
            factors = Factors(lora_a=fresh, lora_b=padded.lora_b)
        prefix[shape.name] = columns(factors, 0, trained)
        tail[shape.name] = columns(factors, trained, total)
    return Payload(prefix, tail)


def aggregate(state, updates, weights, earlier=None):
    basis = {}
    for shape in state.shapes:
        weight = dense(balanced(state.basis[shape.name]))
        for update, share in zip(updates, weights, strict=True):
            if shape.name in update.change:
                start = redistribute(state, update.plan, 0).prefix[shape.name]
                weight = weight + share * dense(moved(start, update.change[shape.name]))
        basis[shape.name] = compact_svd(Factors(lora_a=torch.eye(shape.d_in), lora_b=weight), MAX_RANK)
    return BasisState(state.version + 1, basis, state.shapes, state.seed)


def align(state, updates, weights, earlier=None):
    return {update.assignment: 0.5 for update in updates}


def spectrum(state):
    return {name: basis.sigma.numpy() for name, basis in state.basis.items()}


def export(state):
    return {name: balanced(basis) for name, basis in state.basis.items()}


def unused(*args, **kwargs):
    raise NotImplementedError


METHOD = Method(
    name="toy",
    allocate=unused,
    replan=unused,
    gate=unused,
    init=init,
    redistribute=redistribute,
    aggregate=aggregate,
    spectrum=spectrum,
    align=align,
    export=export,
)


def request(number, client, shape, *, version=0, total=4, trained=2, steps=2, learning_rate=1e-2):
    layers = len(shape.layers)
    plan = RankPlan((total,) * layers, (trained,) * layers)
    assignment = Assignment(
        id=number,
        client=client,
        version=version,
        offered=plan,
        steps=steps,
        seed=1000 + number,
        gate=0.5,
        learning_rate=learning_rate,
        dispatched_at_s=0.0,
        deadline_at_s=60.0,
    )
    return TrainRequest(assignment, plan)


def random_adapter(shape, ranks, seed=0, scale=0.3):
    """Random factors, with these ranks by turns."""
    generator = torch.Generator().manual_seed(seed)
    adapter = {}
    for index, layer in enumerate(shape.layers):
        rank = ranks[index % len(ranks)]
        adapter[layer.name] = Factors(
            lora_a=scale * torch.randn(rank, layer.d_in, generator=generator),
            lora_b=scale * torch.randn(layer.d_out, rank, generator=generator),
        )
    return adapter


def same(left, right):
    """Bitwise equality of two adapters."""
    return set(left) == set(right) and all(
        torch.equal(left[name].lora_a, right[name].lora_a)
        and torch.equal(left[name].lora_b, right[name].lora_b)
        for name in left
    )
