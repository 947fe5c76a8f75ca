"""How much does the frozen tail weigh in a client's forward pass (paper: adaptive tail warm-up, lambda)?

Plain numbers, so that the server can set the gate at dispatch. The alignment that it takes is computed on
*updates* by `fedsim.method.aggregate.alignments`: whole adapters contain the global part and all look alike.
"""

import math

from fedsim.method.bundle import ClientMemory

OPEN_ABOVE = 0.999
"""From here on the gate counts as open: the tail is not scaled at all."""


def tail_gate(memory: ClientMemory | None, version: int, *, warmup: float, decay: float) -> float:
    """Return the weight of the tail for a client that is dispatched at a version.

    ``lambda = 1 - exp(-(1 + s decay^(t - 1 - t_hat)) t / warmup)`` with ``t = version + 1``, clipped to [0,
    1]. The score s is that of the client's last aggregated update and t_hat the version it was dispatched
    with; a client that was never aggregated has s = 0.

    Args:
        memory: What is remembered of the client.
        version: The version it is dispatched with.
        warmup: Versions until the gate is about 63 % open (paper: T_w); 0 opens it at once.
        decay: How fast the score is forgotten per version (paper: beta).

    Returns:
        A number in [0, 1]; exactly 1 from `OPEN_ABOVE` on.

    Source:
        FedHera, ICML 2026, adaptive tail warm-up, as in the published code (beta 0.9, T_w 2).

    Differs from the source:
        t counts versions, so that it is defined without rounds; s comes from updates (see the module).
    """
    if warmup <= 0.0:
        return 1.0
    faded = 0.0 if memory is None else memory.alignment * decay ** max(0, version - memory.version)
    gate = 1.0 - math.exp(-(1.0 + faded) * (version + 1) / warmup)
    return 1.0 if gate >= OPEN_ABOVE else max(0.0, gate)


def no_gate(memory: ClientMemory | None, version: int) -> float:
    """Return 1: for methods without a frozen tail."""
    del memory, version
    return 1.0
