"""How do the processes of one machine share a frozen base? They map one file, which has no name.

The file is unlinked as soon as it is made, and what travels to another process is its open descriptor: no
tensor is pickled, and nothing stays behind however a run ends. A page would be copied if somebody wrote to
it, which nobody does, so the memory of one base serves all.

Tensors begin at multiples of 64 bytes, as PyTorch's own do: the last bit of a product may depend on it.
"""

import math
import mmap
import os
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.reduction import DupFd
from typing import Any

import torch
from torch import Tensor

from fedsim.errors import ModelError, StorageError

_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tensor lies in the file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int


class SharedWeights:
    """The weights of one model in a file that other processes can map. A worker may be given it at its birth.

    Args:
        model: Lives in main memory; from here on it reads its weights from the file, too.

    Raises:
        StorageError: If the file cannot be written.
    """

    def __init__(self, model: Any) -> None:
        self._kind, self._config = type(model), model.config
        self._stored = frozenset(model.state_dict())
        self._places = dict(_laid_out(model))
        self._hold(_written(model, self._places))
        self._attach(model)

    def model(self) -> Any:
        """Make the model again, from nothing but the file.

        Raises:
            ModelError: If Transformers makes another model than the one that was shared.
        """
        mapped = self._mapped()
        stored = {name: tensor for name, tensor in mapped.items() if name in self._stored}
        model = self._kind.from_pretrained(
            None, config=self._config, state_dict=stored, dtype=self._config.dtype
        )
        self._attach(model)
        return model

    def _attach(self, model: Any) -> None:
        """Let a model of the same shape read from the file what it holds by itself."""
        mapped = self._mapped()
        held = dict(_tensors(model))
        if {name: tuple(tensor.shape) for name, tensor in held.items()} != {
            name: place.shape for name, place in self._places.items()
        }:
            raise ModelError(f"{self._kind.__name__}: expected the tensors that are shared, found others")
        for name, tensor in held.items():
            tensor.data = mapped[name]

    def _mapped(self) -> dict[str, Tensor]:
        content = mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_COPY)
        return {
            name: torch.frombuffer(
                content, dtype=place.dtype, count=math.prod(place.shape), offset=place.begin
            ).view(place.shape)
            for name, place in self._places.items()
        }

    def _hold(self, descriptor: int) -> None:
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)

    def __getstate__(self) -> dict[str, Any]:
        """Tell a process that is being started; its copy of the descriptor goes along."""
        told = {name: value for name, value in self.__dict__.items() if name != "_descriptor"}
        return {**told, "_file": DupFd(self._descriptor)}

    def __setstate__(self, told: dict[str, Any]) -> None:
        file = told.pop("_file")
        self.__dict__.update(told)
        self._hold(file.detach())


def _tensors(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield parameters and buffers, each once however many modules use it."""
    yield from model.named_parameters()
    yield from model.named_buffers()


def _laid_out(model: Any) -> Iterator[tuple[str, _Place]]:
    begin = 0
    for name, tensor in _tensors(model):
        yield name, _Place(tensor.dtype, tuple(tensor.shape), begin)
        begin += -(-tensor.numel() * tensor.element_size() // _ALIGNMENT) * _ALIGNMENT


def _written(model: Any, places: dict[str, _Place]) -> int:
    """Write the file; returns its descriptor."""
    try:
        with tempfile.TemporaryFile(prefix="fedsim-base-") as file:
            for name, tensor in _tensors(model):
                file.seek(places[name].begin)
                file.write(tensor.detach().flatten().view(torch.uint8).numpy().data)
            file.flush()
            return os.dup(file.fileno())
    except OSError as error:
        raise StorageError(
            f"{tempfile.gettempdir()}: the base cannot be written for the workers: {error.strerror}; "
            "make room, or name another folder with TMPDIR"
        ) from error
