"""What crosses the wire between server and client? Payloads and changes, rounded by the number format."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from fedsim.learn.train import LocalRun, Trained
from fedsim.learn.versions import VersionStore
from fedsim.lora.codec import roundtrip_adapter
from fedsim.method.bundle import Payload
from fedsim.method.messages import TrainingFailure, TrainRequest, Update
from fedsim.wire import WireDtype

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
