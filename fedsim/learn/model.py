"""Which frozen model is trained on, and what shape does it have?

Transformers is imported where a model is loaded: whoever replays a run does without it.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import nn

from fedsim.errors import MissingExtraError, ModelError, ScenarioError
from fedsim.learn.families import ATTENTION, ATTENTION_TARGETS
from fedsim.learn.model_files import EMBEDDED, resolve_source
from fedsim.learn.shared_weights import SharedWeights
from fedsim.world.shape import LayerShape, ModelShape

IMPORTED_LATE = ("transformers.models.auto.modeling_auto", "transformers.modeling_utils", "peft.tuners.lora")
"""Takes seconds and comes with the first model; a process that others are forked from imports it ahead."""

Dtype = Literal["float32", "bfloat16", "float16"]
Quantize = Literal["none", "8bit", "4bit"]
Attention = Literal["eager", "sdpa", "flash_attention_2"]

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
    """A frozen causal language model in evaluation mode, with its tokenizer.

    Args:
        source: As the user named it.
        model: The transformers model.
        tokenizer: Its tokenizer, with a padding token.
        device: Where it lives.
    """

    source: str
    model: Any
    tokenizer: Any
    device: torch.device


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """How a base model is held.

    Args:
        dtype: Number format of its weights and activations.
        quantize: ``8bit`` or ``4bit`` (NF4) by bitsandbytes, which needs a GPU.
        gradient_checkpointing: Compute activations of blocks again instead of keeping them: less memory, the
            same gradients.
        attention: Implementation of attention; Transformers chooses where None.
    """

    dtype: Dtype = "float32"
    quantize: Quantize = "none"
    gradient_checkpointing: bool = False
    attention: Attention | None = None


DEFAULT_OPTIONS = ModelOptions()


def load_model(
    source: str = EMBEDDED,
    device: str = "auto",
    options: ModelOptions = DEFAULT_OPTIONS,
    weights: SharedWeights | None = None,
) -> LoadedModel:
    """Load a frozen base model.

    Args:
        source: ``embedded``, ``smollm2``, a local folder, a ``.gguf`` file or a hub id.
        device: ``auto`` takes a GPU if there is one.
        options: How it is held; float32 and unquantised by default.
        weights: Of this model, where another process has loaded it and shares them.

    Raises:
        ModelError: If there is no such model, or it cannot be read.
        ScenarioError: If the device does not exist, or cannot do what the options ask for.
        MissingExtraError: If an option needs a package that is not installed.
    """
    place = device_of(device)
    _check_quantization(options, place)
    location = resolve_source(source)
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415 - takes seconds
    from transformers.utils.logging import disable_progress_bar  # noqa: PLC0415 - takes seconds

    disable_progress_bar()
    try:
        if weights is None:
            model = AutoModelForCausalLM.from_pretrained(location, **_loading_arguments(options, place))
        else:
            model = weights.model()
        tokenizer = AutoTokenizer.from_pretrained(location, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"model {source!r}: expected 'embedded', 'smollm2', a .gguf file, a folder with config.json, "
            f"weights and tokenizer, or a hub id that can be reached; transformers said: {reason}"
        ) from error
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"model {source!r}: its tokenizer has no end-of-sequence token, so no text would end"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.requires_grad_(requires_grad=False)
    model.eval()
    if options.quantize == "none":
        model.to(place)
    if options.gradient_checkpointing:
        _checkpoint(source, model)
    return LoadedModel(source, model, tokenizer, place)


def share_weights(loaded: LoadedModel) -> SharedWeights | None:
    """Put the weights of a model where other processes can map them; None where they are on a GPU.

    Raises:
        StorageError: If they cannot be written.
    """
    return SharedWeights(loaded.model) if loaded.device.type == "cpu" else None


@contextmanager
def uncheckpointed(model: Any) -> Iterator[None]:
    """Switch gradient checkpointing off for a while: generation needs the cache, which it takes away."""
    blocks = [module for module in model.modules() if getattr(module, "gradient_checkpointing", False)]
    for block in blocks:
        block.gradient_checkpointing = False
    try:
        yield
    finally:
        for block in blocks:
            block.gradient_checkpointing = True


def _checkpoint(source: str, model: Any) -> None:
    """Switch gradient checkpointing on, and no dropout with it.

    Transformers checkpoints blocks in training mode only, so the blocks, and nothing inside, are put in it.
    """
    if not model.supports_gradient_checkpointing:
        raise ScenarioError(f"model {source!r} does not support gradient checkpointing; switch it off")
    from transformers.modeling_layers import GradientCheckpointingLayer  # noqa: PLC0415 - takes seconds

    # The older name is deprecated where there is a newer one.
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    enable({"use_reentrant": False})
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.training = True


def _loading_arguments(options: ModelOptions, place: torch.device) -> dict[str, Any]:
    arguments: dict[str, Any] = {"dtype": getattr(torch, options.dtype), "trust_remote_code": False}
    if options.attention is not None:
        arguments["attn_implementation"] = options.attention
    if options.quantize != "none":
        from transformers import BitsAndBytesConfig  # noqa: PLC0415 - takes seconds

        arguments["device_map"] = {"": place}
        arguments["quantization_config"] = BitsAndBytesConfig(
            load_in_8bit=options.quantize == "8bit",
            load_in_4bit=options.quantize == "4bit",
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=getattr(torch, options.dtype),
        )
    return arguments


def _check_quantization(options: ModelOptions, place: torch.device) -> None:
    if options.quantize == "none":
        return
    if find_spec("bitsandbytes") is None:
        raise MissingExtraError(
            f"a {options.quantize} base needs the package bitsandbytes; install it with: "
            "pip install 'fedsim-lora[quantize]'"
        )
    if place.type != "cuda":
        raise ScenarioError(
            f"a {options.quantize} base needs a CUDA device, got {place.type}; use model.quantize: none"
        )


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
        targets: Last parts of module names, for instance ``q_proj`` or ``mlp.c_proj``; ``attention`` for
            those of the model's family; or ``all-linear``.

    Raises:
        ScenarioError: If a target matches no linear module; the message lists what there is.
    """
    from transformers.pytorch_utils import Conv1D  # noqa: PLC0415 - takes seconds

    linear = {
        name: module
        for name, module in loaded.model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
    }
    head = {name for name, module in linear.items() if module is loaded.model.get_output_embeddings()}
    inner = {name: module for name, module in linear.items() if name not in head}
    chosen = _chosen(loaded, list(inner), targets)
    config = loaded.model.config
    quantised = {
        f"{name}.weight": math.prod(_sizes(module)) for name, module in linear.items() if _is_packed(module)
    }
    return ModelShape(
        name=loaded.source,
        layers=tuple(_layer_shape(name, inner[name]) for name in chosen),
        num_params=sum(
            quantised.get(name, weight.numel()) for name, weight in loaded.model.named_parameters()
        ),
        matmul_params=sum(math.prod(_sizes(module)) for module in linear.values()),
        num_blocks=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        intermediate_size=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        num_heads=config.num_attention_heads,
        vocab_size=config.vocab_size,
    )


def _chosen(loaded: LoadedModel, names: list[str], targets: Sequence[str] | str) -> list[str]:
    """Return module names in model order."""
    if targets == _ALL_LINEAR or list(targets) == [_ALL_LINEAR]:
        return names
    source = loaded.source
    suffixes = list(dict.fromkeys(_suffix(name) for name in names))
    if targets == ATTENTION:
        family = loaded.model.config.model_type
        if family not in ATTENTION_TARGETS:
            raise ScenarioError(
                f"model {source!r}: expected a known family ({', '.join(ATTENTION_TARGETS)}) for the targets "
                f"attention, got {family}; name {_ALL_LINEAR} or some of {', '.join(suffixes)}"
            )
        targets = ATTENTION_TARGETS[family]
    wanted = [targets] if isinstance(targets, str) else list(targets)
    unknown = [target for target in wanted if not any(_ends_in(name, target) for name in names)]
    if unknown or not wanted:
        raise ScenarioError(
            f"model {source!r} has no linear module {', '.join(map(repr, unknown)) or 'to adapt'}; "
            f"targets can be {_ALL_LINEAR} or some of {', '.join(suffixes)}"
        )
    return [name for name in names if any(_ends_in(name, target) for target in wanted)]


def _ends_in(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _is_packed(module: nn.Module) -> bool:
    """Whether the stored weight holds several numbers per element."""
    weight = module.get_parameter("weight")
    return weight.numel() != math.prod(_sizes(module))


def _sizes(module: nn.Module) -> tuple[int, int]:
    """(d_in, d_out), which a quantised weight does not tell."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    rows, columns = module.get_parameter("weight").shape
    return int(rows), int(columns)


def _layer_shape(name: str, module: nn.Module) -> LayerShape:
    d_in, d_out = _sizes(module)
    parent, _, suffix = name.rpartition(".")
    return LayerShape(name, d_in, d_out, f"{parent}.{_SHARED_INPUT.get(suffix, suffix)}")


def _suffix(name: str) -> str:
    return name.rpartition(".")[2]


def device_of(name: str) -> torch.device:
    """Return the device that a scenario names.

    Args:
        name: ``auto`` takes a GPU where there is one.

    Raises:
        ScenarioError: If torch cannot use it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ScenarioError(
            f"device {name!r}: expected auto, cpu or a device that torch can use: {error}"
        ) from error
