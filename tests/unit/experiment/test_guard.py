import math

import pytest
import torch

from fedsim.errors import TrainingError
from fedsim.experiment.guard import RETRIES, GuardedEvaluator, GuardedExecutor
from fedsim.lora.factors import Factors
from fedsim.method.messages import Assignment, Evaluation, RankPlan, TrainingFailure, TrainRequest, Update

PLAN = RankPlan((1,), (1,))


class FaultyExecutor:
    """Trains as a plan of faults says: assignment -> what happens at each attempt; the last one stays."""

    def __init__(self, faults):
        self.faults = faults
        self.attempts = {}

    async def train(self, requests):
        return [self._answer(request.assignment.id) for request in requests]

    def _answer(self, number):
        attempt = self.attempts[number] = self.attempts.get(number, 0) + 1
        plan = self.faults.get(number, ["good"])
        fault = plan[min(attempt, len(plan)) - 1]
        if isinstance(fault, Exception):
            raise fault
        if fault == "failure":
            return TrainingFailure(number, number, "the worker process died")
        loss = math.nan if fault == "nan loss" else 1.0
        value = math.inf if fault == "infinite" else 1.0
        change = {"layer": Factors(torch.full((1, 2), value), torch.ones(2, 1))}
        return Update(number, number, 0, PLAN, change, 1, loss)


def requests(*numbers):
    return [
        TrainRequest(Assignment(number, number, 0, PLAN, 1, 0, 1.0, 0.1, 0.0, math.inf), PLAN)
        for number in numbers
    ]


FAULTS = {
    "failure": "the worker process died",
    "nan loss": "non-finite loss",
    "infinite": "non-finite update",
}


@pytest.mark.parametrize(("fault", "reason"), FAULTS.items())
async def test_dropped_failures_are_named(fault, reason):
    guarded = GuardedExecutor(FaultyExecutor({2: [fault]}), "drop")
    answers = await guarded.train(requests(1, 2, 3))
    assert [type(answer) for answer in answers] == [Update, TrainingFailure, Update]
    assert answers[1].reason == reason


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_failure_may_end_the_run(fault):
    guarded = GuardedExecutor(FaultyExecutor({2: [fault]}), "fail")
    with pytest.raises(TrainingError, match=r"assignment 2 of client 2 failed: .*can be resumed"):
        await guarded.train(requests(1, 2, 3))
    assert len(await guarded.train(requests(1, 3))) == 2


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_retry_trains_only_what_failed(fault):
    faulty = FaultyExecutor({2: [fault, "good"]})
    answers = await GuardedExecutor(faulty, "retry").train(requests(1, 2, 3))
    assert all(isinstance(answer, Update) for answer in answers)
    assert [answer.assignment for answer in answers] == [1, 2, 3]
    assert faulty.attempts == {1: 1, 2: 2, 3: 1}


async def test_a_retry_trains_whole_groups_and_keeps_what_had_come():
    faulty = FaultyExecutor({2: ["failure", "good"], 1: ["good", "failure"]})
    guarded = GuardedExecutor(faulty, "retry", batch_clients=2)
    answers = await guarded.train(requests(1, 2, 3))
    assert all(isinstance(answer, Update) for answer in answers)
    assert faulty.attempts == {1: 2, 2: 2, 3: 1}


async def test_retries_end():
    faulty = FaultyExecutor({2: ["failure"]})
    answers = await GuardedExecutor(faulty, "retry").train(requests(1, 2))
    assert isinstance(answers[1], TrainingFailure)
    assert faulty.attempts[2] == 1 + RETRIES


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError()])
async def test_one_client_that_runs_out_of_memory_takes_nobody_along(error):
    answers = await GuardedExecutor(FaultyExecutor({2: [error]}), "drop").train(requests(1, 2, 3))
    assert [type(answer) for answer in answers] == [Update, TrainingFailure, Update]
    assert answers[1].reason.startswith("out of memory")


@pytest.mark.parametrize("alone", [True, False])
async def test_a_group_that_runs_out_of_memory_ends_the_run_but_a_client_alone_does_not(alone):
    """Whose fault it is nobody can tell in a group, and another cut would be another record."""
    error = MemoryError()
    guarded = GuardedExecutor(FaultyExecutor({3 if alone else 1: [error]}), "drop", batch_clients=2)
    if alone:
        answers = await guarded.train(requests(1, 2, 3))
        assert [type(answer) for answer in answers] == [Update, Update, TrainingFailure]
    else:
        with pytest.raises(TrainingError, match=r"out of memory with 2 clients .* executor\.batch_clients"):
            await guarded.train(requests(1, 2, 3))


async def test_a_bug_is_no_failure_of_a_client():
    with pytest.raises(ZeroDivisionError):
        await GuardedExecutor(FaultyExecutor({2: [ZeroDivisionError()]}), "drop").train(requests(1, 2))


class Measures:
    """Answers with given figures."""

    def __init__(self, loss, **metrics):
        self.found = Evaluation(3, loss, 0.5, metrics)

    async def evaluate(self, version):
        return self.found


async def test_figures_that_are_finite_or_missing_pass():
    for inner in (Measures(1.0, rouge_l=0.2), Measures(None)):
        assert await GuardedEvaluator(inner).evaluate(3) is inner.found


@pytest.mark.parametrize("inner", [Measures(math.nan), Measures(math.inf), Measures(1.0, rouge_l=math.nan)])
async def test_a_figure_that_is_no_number_ends_the_run(inner):
    with pytest.raises(TrainingError, match=r"version 3: expected a finite .* the model has diverged"):
        await GuardedEvaluator(inner).evaluate(3)
