"""What does an actor of Ray do? It loads the base once, holds versions, and trains whoever it is told to.

A version comes once, as its factors. A request then names version and plan, and the actor cuts the payload by
the method's own rule, as a run in one process does. All of it travels as safetensors frames.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from fedsim.learn.executors.exchange import outcomes_of
from fedsim.learn.executors.frames import Frames, pack_failure, pack_trained
from fedsim.learn.executors.worker import WorkerSetup
from fedsim.learn.freeze import thaw
from fedsim.learn.model import load_model
from fedsim.learn.oracle import OracleStore
from fedsim.learn.peft_bridge import AdapterSlot
from fedsim.learn.trainer import ClientTrainer
from fedsim.method.catalogue import build_method
from fedsim.world.shape import LayerShape


@dataclass(frozen=True, slots=True)
class ActorSetup:
    """All that an actor is told when it is born.

    Args:
        worker: What every worker is told.
        method: Name of the method.
        options: Its options.
        layers: That carry an adapter.
        seed: Of fresh columns.
    """

    worker: WorkerSetup
    method: str
    options: Mapping[str, object]
    layers: tuple[LayerShape, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class Machine:
    """What float results depend on.

    Args:
        device: Kind of device that trains.
        torch: Version of PyTorch.
        cpu_capability: The instruction set that it uses on the CPU.
    """

    device: str
    torch: str
    cpu_capability: str

    @classmethod
    def here(cls, device: str) -> "Machine":
        """Return that of this process."""
        return cls(device, torch.__version__, torch.backends.cpu.get_cpu_capability())


class RayActor:
    """Trains clients on a node of a Ray cluster.

    Args:
        setup: What it is told.
    """

    def __init__(self, setup: ActorSetup) -> None:
        torch.set_num_threads(1)
        told = setup.worker
        loaded = load_model(told.source, told.device, told.options)
        slot = AdapterSlot(loaded.model, told.layers)
        self._dtype = told.settings.wire_dtype
        self._trainer = ClientTrainer(loaded, slot, told.task, told.settings)
        self._store = OracleStore(build_method(setup.method, setup.options), setup.layers, setup.seed)
        self._machine = Machine.here(loaded.device.type)

    def about(self) -> tuple[int, Machine]:
        """Return the process id, and what results depend on; only once everything is loaded."""
        return os.getpid(), self._machine

    def hold(self, version: int, frozen: bytes) -> None:
        """Keep a version."""
        self._store.put(version, thaw(frozen))

    def forget(self, version: int) -> None:
        """Let go of a version."""
        self._store.release(version)

    def train(self, group: Sequence[bytes]) -> list[Frames]:
        """Train the clients of a group together; their versions are held."""
        requests = [thaw(frozen) for frozen in group]
        outcomes = outcomes_of(requests, self._trainer.train_group, self._store, self._dtype)
        return [
            pack_failure(outcome) if isinstance(outcome, str) else pack_trained(outcome)
            for outcome in outcomes
        ]
