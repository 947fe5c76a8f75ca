"""Trains in this process, one group after the other; the reference that every other executor must equal."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from fedsim.learn.data import Task
from fedsim.learn.executors.exchange import Answer, OnAnswer, no_one_waits, serve_group
from fedsim.learn.groups import groups
from fedsim.learn.train import TrainingSettings
from fedsim.learn.trainer import Trainer
from fedsim.learn.versions import VersionStore
from fedsim.method.messages import TrainRequest


class InlineExecutor:
    """Trains in a thread of this process, so that the event loop stays responsive.

    Args:
        store: Versions that payloads are made from.
        trainer: Does the training.
        task: Tells the size of each shard.
        settings: Number format of the wire, among others.
    """

    def __init__(self, store: VersionStore, trainer: Trainer, task: Task, settings: TrainingSettings) -> None:
        self._store = store
        self._trainer = trainer
        self._task = task
        self._settings = settings
        self._turn = asyncio.Lock()
        self.on_answer: OnAnswer = no_one_waits

    async def train(self, requests: Sequence[TrainRequest]) -> list[Answer]:
        """Train every request; answers in their order."""
        answers: dict[int, Answer] = {}
        for group in groups(requests, self._settings.batch_clients):
            asked = [requests[position] for position in group]
            async with self._turn:
                answers |= zip(group, await asyncio.to_thread(self._train_group, asked), strict=True)
        return [answers[position] for position in range(len(requests))]

    async def close(self) -> None:
        """Do nothing: there is nothing to shut down."""

    def batched(self, batch_clients: int) -> "InlineExecutor":
        """Return an executor on the same base that trains so many clients together."""
        settings = replace(self._settings, batch_clients=batch_clients)
        return InlineExecutor(self._store, self._trainer.batched(batch_clients), self._task, settings)

    def _train_group(self, requests: Sequence[TrainRequest]) -> list[Answer]:
        return serve_group(
            requests,
            self._trainer.train_group,
            store=self._store,
            task=self._task,
            dtype=self._settings.wire_dtype,
            on_answer=self.on_answer,
        )
