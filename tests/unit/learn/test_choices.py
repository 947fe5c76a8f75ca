"""Which option a model prefers, against one forward pass per option."""

import pytest
import torch

from fedsim.errors import ScenarioError
from fedsim.learn.choices import OptionScores, option_accuracies, score_options
from fedsim.learn.encode import split_ids
from fedsim.learn.example import Example, Option

EXAMPLES = [
    Example(
        "name[Blue Lion], food[Thai] =>",
        " a pub",
        tuple(
            Option("name[Blue Lion], food[Thai] =>", f" {text}", len(text))
            for text in ("a pub", "it serves Thai food by the riverside")
        ),
        0,
    ),
    Example(
        "x",
        " y",
        (Option("The Quiet Fox serves", " Thai food.", 10), Option("Blue Lion serves", " Thai food.", 10)),
        1,
    ),
]


def score(loaded, examples, **changes):
    settings = {"max_length": 96, "batch_size": 3, "device": loaded.device, **changes}
    with torch.inference_mode():
        return score_options(loaded.model, loaded.tokenizer, examples, **settings)


def test_scores_are_sums_of_log_probabilities_of_the_continuation(loaded):
    for example, found in zip(EXAMPLES, score(loaded, EXAMPLES), strict=True):
        assert found.answer == example.answer
        for option, total in zip(example.options, found.log_likelihoods, strict=True):
            whole = loaded.tokenizer(option.context + option.continuation, return_tensors="pt")["input_ids"]
            start = len(loaded.tokenizer(option.context)["input_ids"])
            with torch.inference_mode():
                scores = loaded.model(input_ids=whole).logits[0, start - 1 : -1].log_softmax(-1)
            assert total == pytest.approx(
                float(scores.gather(1, whole[0, start:, None]).sum()), rel=1e-4, abs=1e-4
            )


def test_batching_changes_nothing(loaded):
    one, many = score(loaded, EXAMPLES, batch_size=1), score(loaded, EXAMPLES, batch_size=8)
    for left, right in zip(one, many, strict=True):
        assert left.log_likelihoods == pytest.approx(right.log_likelihoods, rel=1e-5)


def test_a_long_context_loses_its_beginning(loaded):
    long = Option("name[Blue Lion], " * 40 + "food[Thai] =>", " a pub", 5)
    example = Example("p", " t", (long, long), 0)
    (found,) = score(loaded, [example], max_length=32)
    ids = [*split_ids(loaded.tokenizer, [(long.context, long.continuation)])[0]]
    tail = torch.tensor([(ids[0] + ids[1])[-32:]])
    with torch.inference_mode():
        scores = loaded.model(input_ids=tail).logits[0, -len(ids[1]) - 1 : -1].log_softmax(-1)
    assert found.log_likelihoods[0] == pytest.approx(
        float(scores.gather(1, torch.tensor(ids[1])[:, None]).sum()), rel=1e-4
    )


def test_length_normalisation_can_change_the_preference():
    found = OptionScores((-6.0, -8.0), (4, 10), 1)
    assert (found.preferred, found.preferred_by_length) == (0, 1)
    assert option_accuracies([found]) == {"option_accuracy": 0.0, "option_accuracy_norm": 1.0}


def test_examples_without_options_are_refused(loaded):
    with pytest.raises(ScenarioError, match="options to choose from, got 'tell me'"):
        score(loaded, [Example("tell me", "all")])
