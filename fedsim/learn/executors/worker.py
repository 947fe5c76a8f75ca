"""What does a worker process do? It loads the frozen base once, then trains whoever it is told to."""

import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch

from fedsim.errors import TrainingError
from fedsim.learn.data import Task
from fedsim.learn.executors.frames import Frames, pack_failure, pack_trained, unpack_request
from fedsim.learn.model import DEFAULT_OPTIONS, ModelOptions, load_model
from fedsim.learn.peft_bridge import AdapterSlot
from fedsim.learn.shared_weights import SharedWeights
from fedsim.learn.train import TrainingSettings
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
            frames = (connection.recv_bytes(), connection.recv_bytes())
            for frame in _answer(trainer, frames):
                connection.send_bytes(frame)
    except (EOFError, OSError):
        return


def _answer(trainer: ClientTrainer, frames: Frames) -> Frames:
    client, payload, run = unpack_request(frames)
    try:
        return pack_trained(trainer.train(client, payload, run))
    except TrainingError as error:
        return pack_failure(str(error))
