"""How do adapters of several clients become a few large tensors? Stacked, one slice per client.

Ranks are padded with zeros. A padded column meets only padded rows, so its gradient is exactly zero, and
AdamW, which works number by number, leaves it where it is. Nothing here adds up over clients: what is not
finite in one slice stays there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fedsim.lora.factors import Factors

BETAS = (0.9, 0.999)
EPSILON = 1e-8


@dataclass(frozen=True, slots=True, eq=False)
class StackedPair:
    """Both factors of one layer, of several clients."""

    lora_a: Float[Tensor, "clients rank d_in"]
    lora_b: Float[Tensor, "clients d_out rank"]

    def rows(self, kept: Tensor) -> "StackedPair":
        """Return some of the clients."""
        return StackedPair(self.lora_a.index_select(0, kept), self.lora_b.index_select(0, kept))


def stacked(parts: Sequence[Factors | None], like: Tensor) -> StackedPair | None:
    """Stack one layer of several clients; None where nobody has a column.

    Args:
        parts: Of each client; None where it has nothing.
        like: Tells number format and place.
    """
    rank = max((part.rank for part in parts if part is not None), default=0)
    if not rank:
        return None
    d_in, d_out = next((part.d_in, part.d_out) for part in parts if part is not None)
    pair = StackedPair(like.new_zeros(len(parts), rank, d_in), like.new_zeros(len(parts), d_out, rank))
    for row, part in enumerate(parts):
        if part is not None:
            pair.lora_a[row, : part.rank] = part.lora_a
            pair.lora_b[row, :, : part.rank] = part.lora_b
    return pair


@dataclass(frozen=True, slots=True, eq=False)
class StackedLayer:
    """What one layer computes for several clients: their rows come one client after the other.

    Args:
        prefix: Trained factors.
        frozen: Tail and merged columns, their weights inside ``lora_b``.
        scaling: Factor on the prefix of each client; None where all are 1.
    """

    prefix: StackedPair | None
    frozen: StackedPair | None
    scaling: Float[Tensor, "clients 1 1"] | None = None

    def rows(self, kept: Tensor) -> "StackedLayer":
        """Return some of the clients."""
        return StackedLayer(
            None if self.prefix is None else self.prefix.rows(kept),
            None if self.frozen is None else self.frozen.rows(kept),
            None if self.scaling is None else self.scaling.index_select(0, kept),
        )

    def with_prefix(self, lora_a: Tensor, lora_b: Tensor) -> "StackedLayer":
        """Return the layer with other trained factors."""
        return replace(self, prefix=StackedPair(lora_a, lora_b))

    def forward(self, base: nn.Module, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows d_out"]:
        """Compute the frozen base and every client's own columns."""
        a, b, frozen = self._columns()
        if isinstance(base, nn.Linear) and type(base) is nn.Linear and base.weight.dtype == a.dtype:
            return _columns_on(x, None, base.weight, base.bias, a, b, frozen)
        start = base(x)
        return _columns_on(x.to(a.dtype), start.to(a.dtype), None, None, a, b, frozen).to(start.dtype)

    def _columns(self) -> tuple[Tensor, Tensor, StackedPair | None]:
        """Return what is trained, as it counts, and what is not; frozen columns alone count as the first."""
        if self.prefix is None:
            if self.frozen is None:
                raise ValueError("expected a layer with columns, got none")
            return self.frozen.lora_a, self.frozen.lora_b, None
        lora_b = self.prefix.lora_b if self.scaling is None else self.prefix.lora_b * self.scaling
        return self.prefix.lora_a, lora_b, self.frozen


def _columns_on(
    x: Tensor,
    start: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    a: Tensor,
    b: Tensor,
    frozen: StackedPair | None,
) -> Tensor:
    frozen_a, frozen_b = (None, None) if frozen is None else (frozen.lora_a, frozen.lora_b)
    apply: Callable[..., Tensor] = _AddColumns.apply
    return apply(x, start, weight, bias, a, b, frozen_a, frozen_b)


class _AddColumns(torch.autograd.Function):
    """``base(x) + x A^T B^T``, client by client, with gradients for the trained columns alone.

    The sum with the base happens inside the products; autograd's own formulas would spend a pass over the
    output on each of them, or gradients on frozen columns. Nothing of these is copied.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        start: Tensor | None,
        weight: Any,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        frozen_a: Tensor | None,
        frozen_b: Tensor | None,
    ) -> Tensor:
        """Compute the layer; `start` is what the base gave, or its weight and bias are there."""
        rows = x.reshape(a.shape[0], -1, x.shape[-1])
        hidden = torch.bmm(rows, a.transpose(1, 2))
        if start is None:
            out = nn.functional.linear(rows, weight, bias).baddbmm_(hidden, b.transpose(1, 2))
        else:
            out = torch.baddbmm(start.reshape(len(rows), -1, b.shape[1]), hidden, b.transpose(1, 2))
        if frozen_a is not None and frozen_b is not None:
            out.baddbmm_(torch.bmm(rows, frozen_a.transpose(1, 2)), frozen_b.transpose(1, 2))
        ctx.save_for_backward(rows, hidden, a, b, frozen_a, frozen_b, weight)
        return out.view(*x.shape[:-1], b.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return gradients of the input, of what the base gave, and of the trained columns."""
        rows, hidden, a, b, frozen_a, frozen_b, weight = ctx.saved_tensors
        (outer,) = gradients
        out = outer.reshape(a.shape[0], -1, outer.shape[-1])
        inner = torch.bmm(out, b)
        x_grad = a_grad = b_grad = None
        start_grad = outer if ctx.needs_input_grad[1] else None
        if ctx.needs_input_grad[0]:
            x_grad = torch.bmm(inner, a) if weight is None else (out @ weight).baddbmm_(inner, a)
            if frozen_a is not None:
                x_grad.baddbmm_(torch.bmm(out, frozen_b), frozen_a)
            x_grad = x_grad.view(*outer.shape[:-1], a.shape[-1])
        if ctx.needs_input_grad[4]:
            a_grad = torch.bmm(inner.transpose(1, 2), rows)
        if ctx.needs_input_grad[5]:
            b_grad = torch.bmm(out.transpose(1, 2), hidden)
        return x_grad, start_grad, None, None, a_grad, b_grad, None, None


class StackedAdam:
    """AdamW without weight decay on several clients, each with its own learning rate and its own clipping.

    All numbers of a client lie in one row, so that a step is a handful of operations however many layers
    there are; and so do their gradients, which take as much memory as they do and no more.

    Args:
        parts: What is trained, clients first.
        rates: Learning rate of each client.
        clip_norm: Largest norm of the gradient of a client.
    """

    def __init__(self, parts: Sequence[Tensor], rates: Sequence[float], clip_norm: float) -> None:
        self._shapes = [part.shape[1:] for part in parts]
        self._numbers = torch.cat([part.flatten(1) for part in parts], dim=1)
        self._rates = self._numbers.new_tensor(rates)[:, None]
        self._mean = torch.zeros_like(self._numbers)
        self._square = torch.zeros_like(self._numbers)
        self._gradient = torch.zeros_like(self._numbers)
        self._clip_norm = clip_norm
        self._steps = 0

    def parts(self) -> list[Tensor]:
        """Return what is trained, as leaves, whose gradients a backward pass takes to `gradients`.

        They share memory with it, so each step shows in them.
        """
        self._gradient.zero_()
        leaves = [part.detach().requires_grad_() for part in self._split(self._numbers)]
        for leaf, place in zip(leaves, self.gradients(), strict=True):
            leaf.register_post_accumulate_grad_hook(partial(_take, place))  # type: ignore[no-untyped-call]
        return leaves

    def gradients(self) -> list[Tensor]:
        """Return where the gradients of `parts` are kept."""
        return self._split(self._gradient)

    def _split(self, rows: Tensor) -> list[Tensor]:
        slices = torch.split(rows, [shape.numel() for shape in self._shapes], dim=1)
        return [part.view(-1, *shape) for part, shape in zip(slices, self._shapes, strict=True)]

    @torch.no_grad()
    def step(self) -> None:
        """Clip the gradients of each client, and move its numbers."""
        gradient = self._gradient
        norm = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
        gradient *= (self._clip_norm / (norm + 1e-6)).clamp(max=1.0)
        self._steps += 1
        first, second = (1.0 - beta**self._steps for beta in BETAS)
        self._mean.lerp_(gradient, 1.0 - BETAS[0])
        self._square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1.0 - BETAS[1])
        # The gradient has served; its memory holds the divisor. A rate of zero makes that infinite.
        divisor = torch.sqrt(self._square, out=gradient).div_(second**0.5).add_(EPSILON)
        self._numbers.addcdiv_(self._mean, divisor.mul_(first / self._rates), value=-1.0)

    def keep(self, kept: Tensor) -> None:
        """Go on with some of the clients."""
        self._numbers, self._rates, self._mean, self._square, self._gradient = (
            tensor.index_select(0, kept)
            for tensor in (self._numbers, self._rates, self._mean, self._square, self._gradient)
        )


def _take(place: Tensor, leaf: Tensor) -> None:
    """Move the gradient of a leaf as soon as it is known, so that no two copies of all of them exist."""
    if leaf.grad is not None:
        place.copy_(leaf.grad)
        leaf.grad = None


def penalties(
    layers: Mapping[str, StackedLayer], masks: Mapping[str, Float[Tensor, "clients rank"]]
) -> Float[Tensor, " clients"]:
    """Return, for each client, the sum over layers of the product of the norms of its last columns.

    Args:
        layers: The stacked layers.
        masks: Layer -> 1 where a column is one of the last of its client, 0 elsewhere.
    """
    products = []
    for name, mask in masks.items():
        pair = layers[name].prefix
        if pair is not None:
            a_norm = torch.linalg.vector_norm(pair.lora_a * mask[:, :, None], dim=(1, 2))
            b_norm = torch.linalg.vector_norm(pair.lora_b * mask[:, None, :], dim=(1, 2))
            products.append(a_norm * b_norm)
    return torch.stack(products).sum(dim=0)
