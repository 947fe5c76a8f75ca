"""How do requests and answers travel between processes? A JSON frame, then a safetensors frame; no pickle."""

import json
from dataclasses import asdict
from typing import Any

from safetensors.torch import load, save

from fedsim.learn.train import LocalRun, Trained
from fedsim.lora.factors import Adapter, Factors
from fedsim.method.bundle import LocalRule, Payload

Frames = tuple[bytes, bytes]


def pack_request(client: int, payload: Payload, run: LocalRun) -> Frames:
    """Pack what a worker needs to train one client."""
    head = {
        "client": client,
        "run": asdict(run),
        "rule": asdict(payload.rule),
        "scaling": {name: scale.hex() for name, scale in payload.scaling.items()},
    }
    parts = {"prefix": payload.prefix, "tail": payload.tail, "merged": payload.merged}
    return json.dumps(head).encode(), _pack(parts)


def unpack_request(frames: Frames) -> tuple[int, Payload, LocalRun]:
    """Undo `pack_request`."""
    head = json.loads(frames[0])
    parts = _unpack(frames[1])
    payload = Payload(
        prefix=parts.get("prefix", {}),
        tail=parts.get("tail", {}),
        merged=parts.get("merged", {}),
        scaling={name: float.fromhex(scale) for name, scale in head["scaling"].items()},
        rule=LocalRule(**head["rule"]),
    )
    return head["client"], payload, LocalRun(**head["run"])


def pack_trained(trained: Trained) -> Frames:
    """Pack a successful answer."""
    return json.dumps({"loss": trained.loss.hex()}).encode(), _pack({"change": trained.change})


def pack_failure(reason: str) -> Frames:
    """Pack the answer that training failed."""
    return json.dumps({"failed": reason}).encode(), b""


def unpack_answer(frames: Frames) -> Trained | str:
    """Return what was trained, or why it failed."""
    head: dict[str, Any] = json.loads(frames[0])
    if "failed" in head:
        return str(head["failed"])
    return Trained(_unpack(frames[1]).get("change", {}), float.fromhex(head["loss"]))


def _pack(parts: dict[str, Adapter]) -> bytes:
    """Number the layers, since a safetensors file has no order and what is kept of an update has one."""
    tensors = {}
    for part, adapter in parts.items():
        for number, (name, factors) in enumerate(adapter.items()):
            tensors[f"{part}/{number:06d}/{name}/a"] = factors.lora_a.contiguous()
            tensors[f"{part}/{number:06d}/{name}/b"] = factors.lora_b.contiguous()
    return bytes(save(tensors))


def _unpack(frame: bytes) -> dict[str, dict[str, Factors]]:
    """Undo `_pack`: the same layers in the same order."""
    tensors = load(frame)
    parts: dict[str, dict[str, Factors]] = {}
    for key in sorted(tensors):
        part, number, name, side = key.split("/")
        if side == "a":
            factors = Factors(lora_a=tensors[key], lora_b=tensors[f"{part}/{number}/{name}/b"])
            parts.setdefault(part, {})[name] = factors
    return parts
