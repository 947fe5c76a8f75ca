"""Which singular values has an adapter on disk? Read without torch, computed on the thin factors."""

from pathlib import Path

import numpy as np

WEIGHTS = "adapter_model.safetensors"
_A, _B = ".lora_A.weight", ".lora_B.weight"
_PREFIX = "base_model.model."


def adapter_singular_values(directory: Path) -> dict[str, np.ndarray]:
    """Return module -> singular values of ``B A``, without the scaling, which changes no share of energy.

    Args:
        directory: In PEFT format; where it is not there, nothing is returned.

    Source:
        ``B A`` has the singular values of ``R_b R_a^T``, with B = Q_b R_b and A^T = Q_a R_a.
    """
    path = directory / WEIGHTS
    if not path.is_file():
        return {}
    from safetensors.numpy import load_file  # noqa: PLC0415 - only where there is an adapter

    tensors = load_file(path)
    found = {}
    for key in sorted(tensors):
        other = key.removesuffix(_A) + _B
        if not key.endswith(_A) or other not in tensors:
            continue
        right = np.asarray(np.linalg.qr(tensors[key].astype(np.float64).T, mode="r"))
        left = np.asarray(np.linalg.qr(tensors[other].astype(np.float64), mode="r"))
        name = key.removesuffix(_A).removeprefix(_PREFIX)
        found[name] = np.linalg.svd(left @ right.T, compute_uv=False)
    return found
