"""Which frozen model is trained on, and what shape does it have?"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.pytorch_utils import Conv1D
from transformers.utils.logging import disable_progress_bar

from fedsim.errors import ModelError, ScenarioError
from fedsim.world.shape import LayerShape, ModelShape

EMBEDDED = "embedded"
_ALL_LINEAR = "all-linear"
# Modules that read the same tensor, by the last part of their name.
_SHARED_INPUT = {
    "q_proj": "qkv",
    "k_proj": "qkv",
    "v_proj": "qkv",
    "gate_proj": "gate_up",
    "up_proj": "gate_up",
}


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A frozen causal language model in evaluation mode, float32, with its tokenizer.

    Args:
        source: Where it came from: ``embedded``, a folder or a hub id.
        model: The transformers model.
        tokenizer: Its tokenizer, with a padding token.
        device: Where it lives.
    """

    source: str
    model: Any
    tokenizer: Any
    device: torch.device


def load_model(source: str = EMBEDDED, device: str = "auto") -> LoadedModel:
    """Load a frozen base model.

    Args:
        source: ``embedded``, a local folder or a hub id.
        device: ``auto`` takes a GPU if there is one.

    Raises:
        ModelError: If there is no such model, or it cannot be read.
        ScenarioError: If the device does not exist.
    """
    location = resolve_source(source)
    place = _device(device)
    disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(location, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(location)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"model {source!r}: expected 'embedded', a folder with config.json, weights and tokenizer, or a "
            f"hub id that can be reached; transformers said: {reason}"
        ) from error
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"model {source!r}: its tokenizer has no end-of-sequence token, so no text would end"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.requires_grad_(requires_grad=False)
    return LoadedModel(source, model.eval().to(place), tokenizer, place)


def resolve_source(source: str) -> str:
    """Return the folder or hub id behind a model source.

    Raises:
        ModelError: If a path is given and nothing usable lies there.
    """
    if source == EMBEDDED:
        return str(files("fedsim.learn.embedded") / "weights")
    path = Path(source).expanduser()
    looks_like_path = path.is_absolute() or source.startswith((".", "~")) or source.count("/") > 1
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"model {source!r}: expected a folder with config.json, found none in it")
        return str(path)
    if looks_like_path:
        raise ModelError(f"model {source!r}: expected a folder, found nothing there")
    return source


def check_length(loaded: LoadedModel, max_length: int) -> None:
    """Refuse sequences that are longer than the model's positions.

    Raises:
        ScenarioError: If they are.
    """
    positions = getattr(loaded.model.config, "max_position_embeddings", None)
    if positions is not None and max_length > positions:
        raise ScenarioError(
            f"model {loaded.source!r} has {positions} positions, got a maximum length of {max_length}; "
            f"set max_length to at most {positions}"
        )


def model_shape(loaded: LoadedModel, targets: Sequence[str] | str) -> ModelShape:
    """Read the shape of the real modules that carry an adapter.

    Args:
        loaded: The model, before adapters are attached.
        targets: Last parts of module names, for instance ``q_proj``; or ``all-linear``.

    Raises:
        ScenarioError: If a target matches no linear module; the message lists what there is.
    """
    linear = {
        name: module
        for name, module in loaded.model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
    }
    head = {name for name, module in linear.items() if module is loaded.model.get_output_embeddings()}
    inner = {name: module for name, module in linear.items() if name not in head}
    chosen = _chosen(loaded.source, list(inner), targets)
    config = loaded.model.config
    return ModelShape(
        name=loaded.source,
        layers=tuple(_layer_shape(name, inner[name]) for name in chosen),
        num_params=sum(weight.numel() for weight in loaded.model.parameters()),
        matmul_params=sum(module.weight.numel() for module in linear.values()),
        num_blocks=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        intermediate_size=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        num_heads=config.num_attention_heads,
        vocab_size=config.vocab_size,
    )


def _chosen(source: str, names: list[str], targets: Sequence[str] | str) -> list[str]:
    """Return module names in model order."""
    if targets == _ALL_LINEAR or list(targets) == [_ALL_LINEAR]:
        return names
    wanted = [targets] if isinstance(targets, str) else list(targets)
    suffixes = list(dict.fromkeys(_suffix(name) for name in names))
    unknown = [target for target in wanted if target not in suffixes]
    if unknown or not wanted:
        raise ScenarioError(
            f"model {source!r} has no linear module {', '.join(map(repr, unknown)) or 'to adapt'}; "
            f"targets can be {_ALL_LINEAR} or some of {', '.join(suffixes)}"
        )
    return [name for name in names if _suffix(name) in wanted]


def _layer_shape(name: str, module: nn.Module) -> LayerShape:
    rows, columns = module.get_parameter("weight").shape
    d_out, d_in = (columns, rows) if isinstance(module, Conv1D) else (rows, columns)
    parent, _, suffix = name.rpartition(".")
    return LayerShape(name, d_in, d_out, f"{parent}.{_SHARED_INPUT.get(suffix, suffix)}")


def _suffix(name: str) -> str:
    return name.rpartition(".")[2]


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ScenarioError(
            f"device {name!r}: expected auto, cpu or a device that torch can use: {error}"
        ) from error
