"""Where do our factors live inside a PEFT model and in PEFT's files? The only file that knows PEFT's names.

PEFT wraps the layers of a base. To measure an adapter it computes with factors that are loaded into them for
a while, as buffers, which have no gradient; a layer of rank 0 has no entry, and PEFT skips it. To train,
`fedsim.learn.cohort` lets the layers compute something else for a while.

Exported files carry rank and alpha patterns, so that PEFT's scaling is exactly 1 at every layer.
"""

import json
import math
import re
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fedsim.errors import ModelError
from fedsim.lora.factors import Adapter, Factors, zeros

WEIGHTS_FILE, CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"
_KEY_PREFIX = "base_model.model."
_NAME = "adapter"

Forward: TypeAlias = Callable[[nn.Module, Tensor], Tensor]
"""What a layer computes: from its frozen base and its input."""


class _Frozen(nn.Module):
    """One factor: a buffer."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply."""
        return nn.functional.linear(x, self.weight)


class AdapterSlot:
    """The place in a frozen base model where one adapter at a time is loaded, or its layers are replaced.

    The weights of the base are never written, and what was loaded is gone when the ``with`` block ends, so
    one base serves any number of clients.

    Args:
        model: The frozen base; its target modules are wrapped in place, once.
        layers: Full names of the modules that carry an adapter.

    Raises:
        ModelError: If the model carries an adapter already, or a layer is missing.
    """

    def __init__(self, model: Any, layers: Sequence[str]) -> None:
        from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415 - takes seconds
        from peft.tuners.lora import LoraLayer  # noqa: PLC0415 - takes seconds

        if any(isinstance(module, LoraLayer) for module in model.modules()):
            raise ModelError("expected a model without adapters, found one; load the base again")
        config = LoraConfig(r=1, lora_alpha=1, target_modules=list(layers), bias="none", lora_dropout=0.0)
        inject_adapter_in_model(config, model, adapter_name=_NAME)
        wrapped = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
        if set(wrapped) != set(layers):
            missing = ", ".join(sorted(set(layers) - set(wrapped))) or "none"
            raise ModelError(
                f"expected adapters on {len(layers)} layers, got {len(wrapped)}; missing: {missing}"
            )
        self.model = model.eval()
        self._layers = {name: wrapped[name] for name in layers}
        self._lock = threading.Lock()
        self._clear()
        model.requires_grad_(requires_grad=False)

    @contextmanager
    def loaded(self, adapter: Adapter) -> Iterator[None]:
        """Load a frozen adapter for the duration of a ``with`` block; others wait for their turn.

        Args:
            adapter: Layer -> factors with scaling 1. Layers may be missing; the tensors are copied.
        """
        self._check_known(adapter)
        with self._lock:
            try:
                self._load(adapter)
                yield
            finally:
                self._clear()

    @contextmanager
    def replaced(self, forwards: Mapping[str, Forward]) -> Iterator[None]:
        """Let layers compute this for the duration of a ``with`` block, other layers only their base."""
        self._check_known(forwards)
        with self._lock:
            try:
                for name, forward in forwards.items():
                    self._layers[name].forward = partial(forward, self._layers[name].get_base_layer())
                yield
            finally:
                for name in forwards:
                    del self._layers[name].forward

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in the order of the model."""
        return tuple(self._layers)

    def empty(self, layer: str) -> Tensor:
        """Return a tensor without numbers, of the kind and at the place that factors of a layer have."""
        weight = self._layers[layer].get_base_layer().weight
        return _like(weight, torch.empty(0))

    def _check_known(self, names: Iterable[str]) -> None:
        unknown = sorted(set(names) - set(self._layers))
        if unknown:
            raise ModelError(
                f"the model has no adapter slot at {unknown[0]}; it has {len(self._layers)} others"
            )

    def _load(self, adapter: Adapter) -> None:
        for name, factors in adapter.items():
            if factors.rank:
                layer = self._layers[name]
                weight = layer.get_base_layer().weight
                layer.lora_A[_NAME] = _Frozen(_like(weight, factors.lora_a))
                layer.lora_B[_NAME] = _Frozen(_like(weight, factors.lora_b))
                layer.scaling[_NAME] = 1.0

    def _clear(self) -> None:
        for layer in self._layers.values():
            for modules in (layer.lora_A, layer.lora_B):
                if _NAME in modules:
                    del modules[_NAME]


def _like(base: Tensor, factor: Tensor) -> Tensor:
    """Copy a factor to where the base is: in float32, whatever the base; in float64 where that is."""
    dtype = torch.promote_types(base.dtype, torch.float32)
    return factor.detach().to(device=base.device, dtype=dtype, copy=True)


def to_memory(weight: Tensor) -> Tensor:
    """Copy a tensor to the main memory, in float32."""
    return weight.detach().to(device="cpu", dtype=torch.float32, copy=True)


def export_adapter(adapter: Adapter, directory: Path, base_name: str) -> None:
    """Write an adapter in PEFT's format; the folder appears whole or not at all.

    PEFT cannot hold a layer of rank 0, so such layers are left out; if all are, one rank-1 layer of zeros is
    written.

    Args:
        adapter: Layer name -> factors, scaling 1.
        directory: Folder to write; replaced if it exists.
        base_name: What the base model is called in the configuration.

    Raises:
        ModelError: If there is no layer at all, or the files do not read back as they were written.
    """
    if not adapter:
        raise ModelError(f"{directory}: expected an adapter with at least one layer, got none")
    layers = {name: factors for name, factors in adapter.items() if factors.rank}
    if not layers:
        name, empty = next(iter(adapter.items()))
        layers = {name: zeros(empty.d_in, empty.d_out, rank=1)}
    directory.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        _write(layers, staging, base_name)
        _verify(layers, staging)
        staging.chmod(0o755)
        _replace(staging, directory)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def import_adapter(directory: Path) -> dict[str, Factors]:
    """Read a PEFT LoRA adapter, its scaling absorbed into ``lora_b``.

    Args:
        directory: Folder with ``adapter_config.json`` and ``adapter_model.safetensors``.

    Returns:
        Layer name -> factors with scaling 1, float32.

    Raises:
        ModelError: If a file is missing or unreadable, the adapter is not plain LoRA, or a factor lacks its
            pair.
    """
    config = _read_config(directory)
    tensors = _read_weights(directory)
    names = [key.removesuffix(".lora_A.weight") for key in sorted(tensors) if key.endswith(".lora_A.weight")]
    expected = {f"{name}.lora_{side}.weight" for name in names for side in "AB"}
    if expected != set(tensors):
        odd = min(expected ^ set(tensors))
        raise ModelError(
            f"{directory / WEIGHTS_FILE}: expected pairs of lora_A and lora_B, stumbled over {odd}"
        )
    adapter = {}
    for name in names:
        lora_a, lora_b = tensors[f"{name}.lora_A.weight"].float(), tensors[f"{name}.lora_B.weight"].float()
        if lora_a.shape[0] != lora_b.shape[1]:
            raise ModelError(
                f"{directory / WEIGHTS_FILE}: {name}: ranks differ: {lora_a.shape[0]} in lora_A, "
                f"{lora_b.shape[1]} in lora_B"
            )
        layer = name.removeprefix(_KEY_PREFIX)
        adapter[layer] = Factors(lora_a=lora_a, lora_b=lora_b * _scaling(config, layer, lora_a.shape[0]))
    return adapter


def _write(layers: Mapping[str, Factors], directory: Path, base_name: str) -> None:
    from peft import LoraConfig  # noqa: PLC0415 - takes seconds

    ranks = {name: factors.rank for name, factors in layers.items()}
    largest = max(ranks.values())
    config = LoraConfig(
        r=largest,
        lora_alpha=largest,
        rank_pattern=ranks,
        alpha_pattern=ranks,
        target_modules=list(layers),
        lora_dropout=0.0,
        bias="none",
        use_rslora=False,
        task_type="CAUSAL_LM",
        inference_mode=True,
        base_model_name_or_path=base_name,
    )
    config.save_pretrained(directory)
    path = directory / CONFIG_FILE
    written = json.loads(path.read_text(encoding="utf-8"))
    written["target_modules"] = sorted(layers)  # PEFT writes a set, in an order that differs by process
    path.write_text(json.dumps(written, indent=2, sort_keys=True), encoding="utf-8")
    save_file(_tensors(layers), directory / WEIGHTS_FILE, metadata={"format": "pt"})


def _tensors(layers: Mapping[str, Factors]) -> dict[str, Tensor]:
    tensors = {}
    for name, factors in layers.items():
        tensors[f"{_KEY_PREFIX}{name}.lora_A.weight"] = factors.lora_a.float().contiguous()
        tensors[f"{_KEY_PREFIX}{name}.lora_B.weight"] = factors.lora_b.float().contiguous()
    return tensors


def _verify(layers: Mapping[str, Factors], directory: Path) -> None:
    """Read back: PEFT only warns about a missing tensor and then runs with zeros."""
    written = import_adapter(directory)
    for name, factors in layers.items():
        same = (
            name in written
            and torch.equal(written[name].lora_a, factors.lora_a.float())
            and torch.equal(written[name].lora_b, factors.lora_b.float())
        )
        if not same:
            raise ModelError(f"{directory}: layer {name} did not read back as it was written")


def _replace(staging: Path, directory: Path) -> None:
    if directory.exists():
        old = staging.with_name(staging.name + ".old")
        directory.replace(old)
        staging.replace(directory)
        shutil.rmtree(old)
    else:
        staging.replace(directory)


def _read_config(directory: Path) -> dict[str, Any]:
    path = directory / CONFIG_FILE
    if not path.is_file():
        raise ModelError(f"{directory}: expected a PEFT adapter with {CONFIG_FILE}, found none")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path}: expected JSON: {error}") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise ModelError(f"{path}: expected peft_type LORA")
    for option in ("use_dora", "fan_in_fan_out", "lora_bias", "modules_to_save"):
        if config.get(option):
            raise ModelError(f"{path}: expected plain LoRA, found {option}={config[option]!r}")
    return config


def _read_weights(directory: Path) -> dict[str, Tensor]:
    path = directory / WEIGHTS_FILE
    if not path.is_file():
        raise ModelError(f"{directory}: expected a PEFT adapter with {WEIGHTS_FILE}, found none")
    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise ModelError(f"{path}: expected safetensors: {error}") from error


def _scaling(config: Mapping[str, Any], layer: str, rank: int) -> float:
    """Return PEFT's scaling of this layer; a pattern is a regular expression for the end of its name."""
    alpha = config.get("lora_alpha") or rank
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", layer):
            alpha = value
            break
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def merged_model(model: Any, directory: Path) -> Any:
    """Add an adapter to the weights of its base, by PEFT.

    Args:
        model: The base, without adapters and not quantised; it is changed.
        directory: The adapter, in PEFT's format.

    Returns:
        The base with other weights, without any trace of PEFT.

    Raises:
        ModelError: If the adapter is not whole, or belongs to another model.
    """
    from peft import PeftModel  # noqa: PLC0415 - takes seconds

    names = {name for name, _ in model.named_modules()}
    missing = sorted(set(import_adapter(directory)) - names)
    if missing:
        raise ModelError(f"{directory}: the base model has no layer {missing[0]}; name the right one")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks Transformers in words that will change
        return PeftModel.from_pretrained(model, str(directory)).merge_and_unload()
