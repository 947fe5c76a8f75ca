"""What if a client's training fails? The run ends, goes on without the update, or tries again, as told.

Whatever the policy, numbers that are not finite never pass. A failure that is let through is named in the
record, and the assignment ends as `failed`.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch

from fedsim.errors import TrainingError
from fedsim.learn.groups import groups, whole_groups
from fedsim.lora.factors import is_finite
from fedsim.method.messages import Evaluation, TrainingFailure, TrainRequest, Update
from fedsim.sim.executor import Evaluator, Executor

Policy = Literal["fail", "drop", "retry"]
Answer = Update | TrainingFailure
RETRIES = 2
_OUT_OF_MEMORY = (MemoryError, torch.OutOfMemoryError)


class GuardedExecutor:
    """Applies a policy to failures of another executor.

    Args:
        inner: Trains.
        policy: ``drop`` lets failures through, ``fail`` ends the run at the first, ``retry`` trains again up
            to `RETRIES` times before it lets a failure through.
        batch_clients: How many clients the other executor trains together. Those that were trained together
            are trained again together, so that they come out the same.
    """

    def __init__(self, inner: Executor, policy: Policy, batch_clients: int = 1) -> None:
        self._inner = inner
        self._policy = policy
        self._batch_clients = batch_clients

    async def train(self, requests: Sequence[TrainRequest]) -> list[Answer]:
        """Train every request; answers in their order.

        Raises:
            TrainingError: If training failed and the policy is to end the run.
        """
        answers = await self._attempt(requests)
        for _ in range(RETRIES if self._policy == "retry" else 0):
            failed = {index for index, answer in enumerate(answers) if isinstance(answer, TrainingFailure)}
            if not failed:
                break
            again = whole_groups(requests, self._batch_clients, failed)
            retried = await self._attempt([requests[index] for index in again])
            for index, answer in zip(again, retried, strict=True):
                if index in failed:
                    answers[index] = answer
        if self._policy == "fail":
            _refuse(answers)
        return answers

    async def _attempt(self, requests: Sequence[TrainRequest]) -> list[Answer]:
        """Train; where memory runs out, one group after the other, so that one alone is to blame."""
        try:
            return [finite(answer) for answer in await self._inner.train(requests)]
        except _OUT_OF_MEMORY as error:
            if len(requests) == 1:
                return [_failure(requests[0], f"out of memory: {type(error).__name__}")]
        found: dict[int, Answer] = {}
        for group in groups(requests, self._batch_clients):
            if len(group) == len(requests):
                raise TrainingError(
                    f"out of memory with {len(group)} clients in one pass: set executor.batch_clients to a "
                    "smaller number and run anew; fedsim tune-batch finds one that fits"
                )
            found |= zip(group, await self._attempt([requests[index] for index in group]), strict=True)
        return [found[index] for index in range(len(requests))]


class GuardedEvaluator:
    """Ends a run whose model has diverged: a loss that is no number has no place in a record.

    Args:
        inner: Measures.
    """

    def __init__(self, inner: Evaluator) -> None:
        self._inner = inner

    async def evaluate(self, version: int) -> Evaluation:
        """Measure a version.

        Raises:
            TrainingError: If a figure is not finite.
        """
        found = await self._inner.evaluate(version)
        figures = {"loss": found.loss, "token_accuracy": found.token_accuracy, **found.metrics}
        for name, value in figures.items():
            if value is not None and not math.isfinite(value):
                raise TrainingError(
                    f"version {version}: expected a finite {name} on held-out data, got {value}: the model "
                    "has diverged. Lower training.learning_rate, or set server.robust, and run anew"
                )
        return found


def finite(answer: Answer) -> Answer:
    """Turn an update that is not finite into a failure."""
    if isinstance(answer, TrainingFailure):
        return answer
    if answer.loss is not None and not math.isfinite(answer.loss):
        return TrainingFailure(answer.assignment, answer.client, "non-finite loss")
    if answer.change is not None and not is_finite(answer.change):
        return TrainingFailure(answer.assignment, answer.client, "non-finite update")
    return answer


def _failure(request: TrainRequest, reason: str) -> TrainingFailure:
    return TrainingFailure(request.assignment.id, request.assignment.client, reason)


def _refuse(answers: Sequence[Answer]) -> None:
    for answer in answers:
        if isinstance(answer, TrainingFailure):
            raise TrainingError(
                f"assignment {answer.assignment} of client {answer.client} failed: {answer.reason}; "
                "training.on_client_error is fail, so the run ends here and can be resumed"
            )
