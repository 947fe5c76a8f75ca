"""How many clients should go through the base in one pass? Looked up by shape, never by stopwatch.

The table holds what was measured (`benchmarks/README.md`, figure *cohort*): on one CPU thread, a number of
clients at which a step was faster than one by one in every repetition. Where nothing was measured, a GPU for
instance, clients are trained one by one. `fedsim tune-batch` measures other machines and shapes, and prints a
number to pin.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shape:
    """A range of shapes for which one number of clients is right.

    Args:
        device: ``cpu`` or ``cuda``.
        num_params: Largest model.
        tokens: Most tokens of one client's batch, padding included.
        clients: How many are trained together.
    """

    device: str
    num_params: int
    tokens: int
    clients: int


TABLE = (
    Shape("cpu", num_params=2_000_000, tokens=128, clients=16),
    Shape("cpu", num_params=2_000_000, tokens=256, clients=8),
)
"""The first range that holds a shape counts."""


def batch_clients(num_params: int, tokens: int, device: str) -> int:
    """Look up how many clients are trained together.

    Args:
        num_params: Of the base.
        tokens: Of one client's batch, padding included.
        device: ``cpu`` or ``cuda``.

    Returns:
        The number of the first range that holds the shape; 1 where none does.
    """
    for shape in TABLE:
        if device == shape.device and num_params <= shape.num_params and tokens <= shape.tokens:
            return shape.clients
    return 1
