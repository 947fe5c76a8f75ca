"""Trains in this process, one client after the other; the reference that every other executor must equal."""

import asyncio
from collections.abc import Sequence

from fedsim.errors import TrainingError
from fedsim.learn.data import Task
from fedsim.learn.executors.exchange import OnAnswer, failure, local_run, no_one_waits, received, update
from fedsim.learn.train import TrainingSettings
from fedsim.learn.trainer import Trainer
from fedsim.learn.versions import VersionStore
from fedsim.method.messages import TrainingFailure, TrainRequest, Update


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
        self.on_answer: OnAnswer = no_one_waits

    async def train(self, requests: Sequence[TrainRequest]) -> list[Update | TrainingFailure]:
        """Train every request; answers in their order."""
        return [await asyncio.to_thread(self._train, request) for request in requests]

    async def close(self) -> None:
        """Do nothing: there is nothing to shut down."""

    def _train(self, request: TrainRequest) -> Update | TrainingFailure:
        client, dtype = request.assignment.client, self._settings.wire_dtype
        try:
            payload = received(self._store, request, dtype)
            trained = self._trainer.train(client, payload, local_run(request))
            answer = update(request, trained, self._task.num_examples(client), dtype)
        except TrainingError as error:
            return failure(request, str(error))
        self.on_answer(request, answer)
        return answer
