"""What is left of an update whose upload was cut? The columns that came whole; the others count as untrained.

A client sends the columns of its trained prefix by the energy of what they change, per byte. So whatever has
come when the link falls away is the best that so many bytes could carry. Columns are ranked on the server's
exact factors, of which the client's are a rounding; the index of a column is not priced.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from fedsim.lora.factors import Adapter, Factors
from fedsim.method.messages import Update
from fedsim.world.shape import LayerShape

Order = list[tuple[str, int]]


def column_energies(start: Factors, change: Factors) -> Float[Tensor, " rank"]:
    """Squared Frobenius norm of what each column of a change does to the product, by itself.

    ``dP Q' + P dQ`` has rank two, so its norm follows from inner products of vectors; float64.
    """
    p, q = start.lora_b.double(), start.lora_a.double()
    dp, dq = change.lora_b.double(), change.lora_a.double()
    after = q + dq
    square = (dp**2).sum(0) * (after**2).sum(1) + (p**2).sum(0) * (dq**2).sum(1)
    cross = 2.0 * (dp * p).sum(0) * (after * dq).sum(1)
    return (square + cross).clamp_min(0.0)


def sending_order(
    prefix: Adapter, change: Adapter, shapes: Sequence[LayerShape], column_bytes: Sequence[int]
) -> Order:
    """Put the columns of an update in the order in which they are sent.

    Args:
        prefix: Trained columns as they were before training.
        change: Of them.
        shapes: Layers in the order of the prices.
        column_bytes: Bytes of one column of each layer.

    Returns:
        Layer and column, most energy per byte first; ties by layer and column.
    """
    ranked = []
    for index, (layer, size) in enumerate(zip(shapes, column_bytes, strict=True)):
        if layer.name in change:
            energies = column_energies(prefix[layer.name], change[layer.name]).tolist()
            ranked += [(-energy / size, index, column) for column, energy in enumerate(energies)]
    return [(shapes[index].name, column) for _, index, column in sorted(ranked)]


def arrived(update: Update, prefix: Adapter, shapes: Sequence[LayerShape]) -> Update:
    """Return an update without the columns that did not arrive.

    Args:
        update: Whole, with the place where its upload was cut; one that came whole stays as it is.
        prefix: Trained columns as they were before training.
        shapes: Layers in the order of the prices.

    Returns:
        The update, with a zero change for the others and the list of those that came.
    """
    if update.sent is None or update.change is None:
        return update
    size_of = {layer.name: size for layer, size in zip(shapes, update.sent.column_bytes, strict=True)}
    left, came = update.sent.size_bytes, dict[str, list[int]]()
    for name, column in sending_order(prefix, update.change, shapes, update.sent.column_bytes):
        left -= size_of[name]
        if left < 0:
            break
        came.setdefault(name, []).append(column)
    kept = {name: tuple(sorted(numbers)) for name, numbers in came.items()}
    change = {name: _only(factors, kept.get(name, ())) for name, factors in update.change.items()}
    return replace(update, change=change, sent=None, arrived=kept)


def columns_that_count(update: Update, layer: LayerShape, trained: int) -> list[int]:
    """Return which columns of a layer's trained prefix take part in the aggregation."""
    if update.arrived is None:
        return list(range(trained))
    return list(update.arrived.get(layer.name, ()))


def arrived_ranks(update: Update, shapes: Sequence[LayerShape]) -> tuple[int, ...]:
    """Return how many columns of each layer arrived."""
    found: Mapping[str, tuple[int, ...]] = update.arrived or {}
    return tuple(len(found.get(layer.name, ())) for layer in shapes)


def _only(factors: Factors, columns: Sequence[int]) -> Factors:
    """Set the columns that are not listed to zero."""
    mask = torch.zeros(factors.rank, dtype=factors.lora_a.dtype)
    mask[list(columns)] = 1.0
    return Factors(lora_a=factors.lora_a * mask[:, None], lora_b=factors.lora_b * mask)
