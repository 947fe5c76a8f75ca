"""What does a worker process do? It loads the frozen base once, then trains whoever it is told to."""

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch

from fedsim.learn.data import Task
from fedsim.learn.executors.frames import Frames, pack_failure, pack_trained, unpack_request
from fedsim.learn.model import DEFAULT_OPTIONS, ModelOptions, load_model
from fedsim.learn.peft_bridge import AdapterSlot
from fedsim.learn.shared_weights import SharedWeights
from fedsim.learn.train import Job, TrainingSettings
from fedsim.learn.trainer import ClientTrainer

READY = b"ready"


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """All that a worker is told when it is born.

    Args:
        source: The base model.
        device: Where it lives.
        layers: Full names of the modules that carry an adapter.
        task: Shards are made in the worker, so that only adapters travel.
        settings: What is the same for every assignment.
        options: How the base is held.
        weights: The base, where another process has loaded it into main memory; else the worker loads it.
    """

    source: str
    device: str
    layers: tuple[str, ...]
    task: Task
    settings: TrainingSettings
    options: ModelOptions = DEFAULT_OPTIONS
    weights: SharedWeights | None = None


def serve(connection: Connection, setup: WorkerSetup) -> None:
    """Train requests until the other end of the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    torch.set_num_threads(1)
    loaded = load_model(setup.source, setup.device, setup.options, setup.weights)
    trainer = ClientTrainer(loaded, AdapterSlot(loaded.model, setup.layers), setup.task, setup.settings)
    try:
        connection.send_bytes(READY)
        while True:
            size = int(connection.recv_bytes())
            group = [(connection.recv_bytes(), connection.recv_bytes()) for _ in range(size)]
            for frames in _answers(trainer, group):
                for frame in frames:
                    connection.send_bytes(frame)
    except (EOFError, OSError):
        return


def _answers(trainer: ClientTrainer, group: Sequence[Frames]) -> list[Frames]:
    outcomes = trainer.train_group([Job(*unpack_request(frames)) for frames in group])
    return [
        pack_failure(outcome) if isinstance(outcome, str) else pack_trained(outcome) for outcome in outcomes
    ]
