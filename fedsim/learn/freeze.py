"""How does a value of the method become bytes, and back, bit for bit? A safetensors file with JSON in it.

Only plain data, arrays, tensors and fedsim's own frozen values pass. A file can name a dataclass of
`fedsim.method`, `fedsim.lora`, `fedsim.world` or `fedsim.learn`, and nothing else: reading one runs no code
of its own.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from fedsim.errors import InputError

_HOMES = ("fedsim.method.", "fedsim.lora.", "fedsim.world.", "fedsim.learn.")
_TREE = "tree"
_LENGTH_BYTES = 8  # safetensors: length of the header, little-endian, then the header as JSON
Tensors = dict[str, torch.Tensor]


def freeze(value: object) -> bytes:
    """Turn a value into bytes; equal values, mappings in the same order, give equal bytes.

    Raises:
        TypeError: If something in it is neither plain data, nor an array, nor a value of fedsim.
    """
    tensors: Tensors = {}
    tree = json.dumps(_freeze(value, tensors), separators=(",", ":"))
    return bytes(save(tensors, {_TREE: tree}))


def thaw(content: bytes) -> Any:
    """Undo `freeze`.

    Raises:
        InputError: If it is not what `freeze` writes.
    """
    try:
        size = int.from_bytes(content[:_LENGTH_BYTES], "little")
        header = json.loads(content[_LENGTH_BYTES : _LENGTH_BYTES + size])
        return _thaw(json.loads(header["__metadata__"][_TREE]), load(content))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, SafetensorError) as error:
        raise InputError(f"expected a value of fedsim, found something else ({error})") from error


def _freeze(value: object, tensors: Tensors) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float | np.number):
        return value.item() if isinstance(value, np.number) else value
    for kind, rule in _FREEZERS:
        if isinstance(value, kind):
            return rule(value, tensors)
    if is_dataclass(value) and not isinstance(value, type):
        return _freeze_dataclass(value, tensors)
    raise TypeError(f"expected plain data, an array, a tensor or a value of fedsim, got {type(value)}")


def _freeze_tensor(value: torch.Tensor, tensors: Tensors) -> Any:
    """Keep the order of the strides too: the last bit of a product may depend on the layout of factors."""
    strides = value.stride()
    order = sorted(range(value.dim()), key=lambda axis: (-strides[axis], axis))
    name = f"{len(tensors):06d}"
    tensors[name] = value.detach().cpu().permute(order).contiguous().clone()
    kept: dict[str, Any] = {"tensor": name}
    if order != sorted(order):
        kept["order"] = order
    return kept


def _freeze_array(value: np.ndarray, tensors: Tensors) -> Any:
    name = f"{len(tensors):06d}"
    tensors[name] = torch.from_numpy(np.ascontiguousarray(value).copy())
    return {"array": name}


def _freeze_mapping(value: Mapping[Any, Any], tensors: Tensors) -> Any:
    return {"map": [[_freeze(key, tensors), _freeze(inner, tensors)] for key, inner in value.items()]}


def _freeze_tuple(value: tuple[Any, ...], tensors: Tensors) -> Any:
    return {"tuple": [_freeze(inner, tensors) for inner in value]}


def _freeze_list(value: list[Any], tensors: Tensors) -> Any:
    return [_freeze(inner, tensors) for inner in value]


def _freeze_dataclass(value: Any, tensors: Tensors) -> Any:
    kind = type(value)
    name = f"{kind.__module__}:{kind.__qualname__}"
    _class(name)
    return {
        "is": name,
        # The rest follows from these.
        "fields": {
            field.name: _freeze(getattr(value, field.name), tensors) for field in fields(value) if field.init
        },
    }


_FREEZERS: tuple[tuple[type, Callable[[Any, Tensors], Any]], ...] = (
    (torch.Tensor, _freeze_tensor),
    (np.ndarray, _freeze_array),
    (Mapping, _freeze_mapping),
    (tuple, _freeze_tuple),
    (list, _freeze_list),
)


def _thaw(tree: Any, tensors: Tensors) -> Any:
    if isinstance(tree, list):
        return [_thaw(inner, tensors) for inner in tree]
    if not isinstance(tree, dict):
        return tree
    for mark, rule in _THAWERS.items():
        if mark in tree:
            return rule(tree, tensors)
    raise ValueError(f"expected a mark of a value, got {sorted(tree)}")


def _thaw_tensor(tree: dict[str, Any], tensors: Tensors) -> torch.Tensor:
    value = tensors[tree["tensor"]]
    if "order" not in tree:
        return value
    back = [tree["order"].index(axis) for axis in range(value.dim())]
    return value.permute(back)


def _thaw_dataclass(tree: dict[str, Any], tensors: Tensors) -> Any:
    return _class(tree["is"])(**{name: _thaw(inner, tensors) for name, inner in tree["fields"].items()})


_THAWERS: dict[str, Callable[[dict[str, Any], Tensors], Any]] = {
    "tensor": _thaw_tensor,
    "array": lambda tree, tensors: tensors[tree["array"]].numpy(),
    "map": lambda tree, tensors: {_thaw(k, tensors): _thaw(v, tensors) for k, v in tree["map"]},
    "tuple": lambda tree, tensors: tuple(_thaw(inner, tensors) for inner in tree["tuple"]),
    "is": _thaw_dataclass,
}


def _class(name: str) -> Any:
    """Find one of fedsim's frozen values by name.

    Raises:
        TypeError: If it is anything else.
    """
    module, _, kind = name.partition(":")
    if not module.startswith(_HOMES) or not kind.isidentifier():
        raise TypeError(f"{name} is no value of fedsim")
    found = getattr(import_module(module), kind, None)
    if not (isinstance(found, type) and is_dataclass(found)):
        raise TypeError(f"{name} is no value of fedsim")
    return found
