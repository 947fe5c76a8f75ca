"""Trains in persistent processes, several clients at once; bit for bit what `InlineExecutor` gives.

Each process holds the frozen base and one torch thread; only adapters travel. Who trains which group of
clients does not matter for the result, so a free process takes the next one.
"""

import asyncio
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from threading import Lock
from types import ModuleType
from typing import TYPE_CHECKING

import torch

from fedsim.errors import ModelError, TrainingError
from fedsim.learn.cohort import Outcome
from fedsim.learn.executors import worker
from fedsim.learn.executors.exchange import Answer, OnAnswer, no_one_waits, serve_group
from fedsim.learn.executors.frames import Frames, pack_request, unpack_answer
from fedsim.learn.executors.pool import Pool
from fedsim.learn.executors.worker import READY, WorkerSetup, serve
from fedsim.learn.model import IMPORTED_LATE
from fedsim.learn.versions import VersionStore
from fedsim.method.messages import TrainRequest

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkServerContext, ForkServerProcess, SpawnContext, SpawnProcess

_ATTEMPTS = 2
_DEAD = (EOFError, OSError)


class WorkerExecutor:
    """A pool of training processes.

    They start at once and warm up while the caller goes on. A process that dies is replaced, and its group
    tried once more.

    Args:
        store: Versions that payloads are made from.
        setup: What every process is told.
        num_workers: Number of processes.
    """

    def __init__(self, store: VersionStore, setup: WorkerSetup, num_workers: int) -> None:
        if num_workers < 1:
            raise ValueError(f"expected at least one worker, got {num_workers}")
        self._store = store
        self._setup = setup
        self._context = _context()
        num_gpus = torch.cuda.device_count()
        self._setups = [
            replace(setup, device=placed(setup.device, index, num_gpus)) for index in range(num_workers)
        ]
        self._workers = [_Worker(self._context, own) for own in self._setups]
        self._pool = Pool(num_workers, setup.settings.batch_clients, self._train, self._kill)
        self._is_closed = False
        self._replacing = Lock()
        self.on_answer: OnAnswer = no_one_waits

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids, for tests and for people who look at a busy machine."""
        return tuple(process.pid for process in self._workers)

    async def train(self, requests: Sequence[TrainRequest]) -> list[Answer]:
        """Train every request; answers in their order. Cancelling it ends the processes.

        Raises:
            ModelError: If a process cannot start.
            TrainingError: If the executor has been closed.
        """
        if self._is_closed:
            raise TrainingError("the workers are closed; make a new executor")
        return await self._pool.train(requests)

    async def close(self) -> None:
        """End all processes."""
        await asyncio.to_thread(self._kill)
        self._pool.close()

    def _train(self, index: int, requests: Sequence[TrainRequest]) -> list[Answer]:
        return serve_group(
            requests,
            lambda jobs: self._ask(index, [pack_request(job.client, job.payload, job.run) for job in jobs]),
            store=self._store,
            task=self._setup.task,
            dtype=self._setup.settings.wire_dtype,
            on_answer=self.on_answer,
        )

    def _ask(self, index: int, group: Sequence[Frames]) -> list[Outcome]:
        """Send a group to a worker; replace it and try once more if it dies."""
        for _ in range(_ATTEMPTS):
            worker = self._workers[index]
            try:
                return [unpack_answer(frames) for frames in worker.ask(group)]
            except _DEAD as error:
                if not worker.is_ready and not self._is_closed:
                    raise ModelError(
                        f"worker {worker.pid} died while it loaded {self._setup.source!r}"
                    ) from error
                self._replace(index)
        reason = f"the worker process died {_ATTEMPTS} times on this request"
        if len(group) > 1:
            reason += (
                f", trained with {len(group) - 1} others; a smaller executor.batch_clients takes less memory"
            )
        return [reason] * len(group)

    def _replace(self, index: int) -> None:
        with self._replacing:
            if self._is_closed:
                raise TrainingError("the workers were closed while they trained")
            self._workers[index].kill()
            self._workers[index] = _Worker(self._context, self._setups[index])

    def _kill(self) -> None:
        with self._replacing:
            self._is_closed = True
            for process in self._workers:
                process.kill()


def placed(device: str, index: int, num_gpus: int) -> str:
    """Return the device of one worker: GPUs go round, everything else is as it was asked for.

    Args:
        device: As the scenario has it.
        index: Of the worker.
        num_gpus: On this machine.
    """
    on_gpu = num_gpus > 0 and device in {"auto", "cuda"}
    return f"cuda:{index % num_gpus}" if on_gpu else device


def _context() -> "SpawnContext | ForkServerContext":
    """Fork from a server that has imported torch once; spawn where the platform has no such thing."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([worker.__name__, *IMPORTED_LATE])
    return context


_hiding = Lock()


@contextmanager
def _without_script() -> Iterator[None]:
    """Let a process start that does not run the user's script again: a worker needs nothing of it.

    `multiprocessing` looks the script up in `sys.modules`. So a script that calls `fedsim.run` needs no
    ``if __name__ == "__main__"``.
    """
    with _hiding:
        script = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = script


class _Worker:
    """One process and the parent's end of its pipe."""

    def __init__(self, context: "SpawnContext | ForkServerContext", setup: WorkerSetup) -> None:
        self._connection: Connection
        self._connection, child = context.Pipe()
        self._process: SpawnProcess | ForkServerProcess = context.Process(
            target=serve, args=(child, setup), daemon=True
        )
        with _without_script():
            self._process.start()
        child.close()
        self.is_ready = False

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid or 0

    def ask(self, group: Sequence[Frames]) -> list[Frames]:
        """Send a group of requests and wait for their answers.

        Raises:
            EOFError: If the process dies before it has answered; or OSError.
            TrainingError: If it says something else than it should.
        """
        if not self.is_ready:
            greeting = self._connection.recv_bytes()
            if greeting != READY:
                raise TrainingError(f"worker {self.pid}: expected a greeting, got {greeting[:20]!r}")
            self.is_ready = True
        self._connection.send_bytes(str(len(group)).encode())
        for frames in group:
            for frame in frames:
                self._connection.send_bytes(frame)
        return [(self._connection.recv_bytes(), self._connection.recv_bytes()) for _ in group]

    def kill(self) -> None:
        """End the process; whoever waits for its answer gets an EOFError."""
        self._process.kill()
        self._process.join()
