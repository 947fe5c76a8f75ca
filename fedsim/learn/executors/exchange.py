"""What crosses the wire between server and client? Payloads and changes, rounded by the number format."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

from fedsim.errors import TrainingError
from fedsim.learn.cohort import Outcome
from fedsim.learn.data import Task
from fedsim.learn.train import Job, LocalRun, Trained
from fedsim.learn.versions import VersionStore
from fedsim.lora.codec import roundtrip_adapter
from fedsim.method.bundle import Payload
from fedsim.method.messages import TrainingFailure, TrainRequest, Update
from fedsim.wire import WireDtype

Answer: TypeAlias = Update | TrainingFailure

OnAnswer: TypeAlias = Callable[[TrainRequest, Update], None]
"""Who wants each update as soon as it is there; called in the thread that made it."""


def no_one_waits(_: TrainRequest, __: Update) -> None:
    """Do nothing: nobody wants updates before their batch is whole."""


def received(store: VersionStore, request: TrainRequest, dtype: WireDtype) -> Payload:
    """Return the payload as the client decodes it."""
    exact = store.payload(request)
    return replace(
        exact,
        prefix=roundtrip_adapter(exact.prefix, dtype),
        tail=roundtrip_adapter(exact.tail, dtype),
        merged=roundtrip_adapter(exact.merged, dtype),
    )


def local_run(request: TrainRequest) -> LocalRun:
    """Return what the local loop needs of a request."""
    assignment = request.assignment
    return LocalRun(assignment.steps, assignment.learning_rate, assignment.gate, assignment.seed)


def update(request: TrainRequest, trained: Trained, num_examples: int, dtype: WireDtype) -> Update:
    """Return the update as the server decodes it."""
    return Update(
        assignment=request.assignment.id,
        client=request.assignment.client,
        base_version=request.assignment.version,
        plan=request.plan,
        change=roundtrip_adapter(trained.change, dtype),
        num_examples=num_examples,
        loss=trained.loss,
    )


def failure(request: TrainRequest, reason: str) -> TrainingFailure:
    """Return the answer to a request that could not be served."""
    return TrainingFailure(request.assignment.id, request.assignment.client, reason)


def serve_group(
    requests: Sequence[TrainRequest],
    train: Callable[[list[Job]], Sequence[Outcome]],
    *,
    store: VersionStore,
    task: Task,
    dtype: WireDtype,
    on_answer: OnAnswer,
) -> list[Answer]:
    """Answer the requests of one group; what crosses the wire is rounded both ways.

    Args:
        requests: Of clients that are trained together.
        train: Trains them, here or elsewhere; outcomes in their order.
        store: Versions that payloads are made from.
        task: Tells the size of each shard.
        dtype: Number format of the wire.
        on_answer: Hears of each update.

    Returns:
        Answers in the order of the requests.
    """
    outcomes = outcomes_of(requests, train, store, dtype)
    return conclude(requests, outcomes, task=task, dtype=dtype, on_answer=on_answer)


def outcomes_of(
    requests: Sequence[TrainRequest],
    train: Callable[[list[Job]], Sequence[Outcome]],
    store: VersionStore,
    dtype: WireDtype,
) -> list[Outcome]:
    """Train the clients of one group from what they receive. See `serve_group`."""
    outcomes: dict[int, Outcome] = {}
    jobs: dict[int, Job] = {}
    for position, request in enumerate(requests):
        try:
            payload = received(store, request, dtype)
            jobs[position] = Job(request.assignment.client, payload, local_run(request))
        except TrainingError as error:
            outcomes[position] = str(error)
    outcomes |= zip(jobs, train(list(jobs.values())) if jobs else [], strict=True)
    return [outcomes[position] for position in range(len(requests))]


def conclude(
    requests: Sequence[TrainRequest],
    outcomes: Sequence[Outcome],
    *,
    task: Task,
    dtype: WireDtype,
    on_answer: OnAnswer,
) -> list[Answer]:
    """Turn what was trained into answers. See `serve_group`."""
    answers = [_answer(*pair, task, dtype) for pair in zip(requests, outcomes, strict=True)]
    for request, answer in zip(requests, answers, strict=True):
        if isinstance(answer, Update):
            on_answer(request, answer)
    return answers


def _answer(request: TrainRequest, outcome: Outcome, task: Task, dtype: WireDtype) -> Answer:
    if isinstance(outcome, str):
        return failure(request, outcome)
    try:
        return update(request, outcome, task.num_examples(request.assignment.client), dtype)
    except TrainingError as error:
        return failure(request, str(error))
