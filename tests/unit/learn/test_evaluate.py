"""Measures of a global version."""

import math

import pytest
import torch

from fedsim.learn.encode import encode
from fedsim.learn.evaluate import EvaluationSettings, GlobalEvaluator, before
from fedsim.learn.example import Example, Option
from fedsim.learn.versions import VersionStore
from fedsim.sim.executor import Evaluator
from tests.unit.learn.toy import METHOD, random_adapter

SETTINGS = EvaluationSettings(max_length=96, batch_size=8, generated=6, max_new_tokens=40)


@pytest.fixture(scope="module")
def store(slotted):
    return VersionStore(METHOD, slotted[2].layers, 0)


@pytest.fixture(scope="module")
def evaluator(slotted, task, store):
    return GlobalEvaluator(slotted[0], slotted[1], store, task.held_out, SETTINGS)


async def test_version_zero_measures_the_base(evaluator, loaded, task):
    found = await evaluator.evaluate(0)
    assert isinstance(evaluator, Evaluator)
    losses, right, tokens = 0.0, 0, 0
    for item in encode(loaded.tokenizer, task.held_out, 96):
        ids = torch.tensor([item.ids])
        with torch.inference_mode():
            scores = loaded.model(input_ids=ids).logits[0, item.prompt_length - 1 : -1].log_softmax(-1)
        target = ids[0, item.prompt_length :]
        losses -= float(scores.gather(1, target[:, None]).sum())
        right += int((scores.argmax(-1) == target).sum())
        tokens += len(target)
    assert found.version == 0
    assert found.loss == pytest.approx(losses / tokens, rel=1e-5)
    assert found.token_accuracy == pytest.approx(right / tokens)
    assert 0.2 < found.metrics["rouge_l"] < 0.8
    assert found == await evaluator.evaluate(0)


def test_an_adapter_changes_the_measures(evaluator, slotted):
    base = evaluator.measure(0, {})
    worse = evaluator.measure(1, random_adapter(slotted[2], [4], scale=0.5))
    assert worse.loss > base.loss + 0.5
    assert worse.token_accuracy < base.token_accuracy
    assert math.isfinite(worse.metrics["rouge_l"])


def test_responses_hold_no_prompt_and_do_not_depend_on_their_neighbours(evaluator, loaded):
    examples = [
        Example("name[The Quiet Fox], food[Thai] => ", ""),
        Example(
            "house[h3], name[Blue Lion], area[riverside], eatType[pub], hours[midnight], dish[D12A] => ", ""
        ),
    ]
    together = evaluator.generate({}, examples)
    assert together == [evaluator.generate({}, [example])[0] for example in examples]
    for example, response in zip(examples, together, strict=True):
        assert "=>" not in response
        assert "[" not in response
        ids = loaded.tokenizer(example.prompt, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            for _ in range(SETTINGS.max_new_tokens):
                best = loaded.model(input_ids=ids).logits[0, -1].argmax()
                if best == loaded.tokenizer.eos_token_id:
                    break
                ids = torch.cat([ids, best[None, None]], dim=1)
        prompt_length = len(loaded.tokenizer(example.prompt)["input_ids"])
        assert response == loaded.tokenizer.decode(ids[0, prompt_length:]).strip()


def test_generation_can_be_left_out(slotted, store, task):
    settings = EvaluationSettings(batch_size=8, generated=0)
    found = GlobalEvaluator(slotted[0], slotted[1], store, task.held_out[:8], settings).measure(0, {})
    assert found.metrics == {}


def test_options_and_clients_are_measured_where_asked(slotted, store, task):
    options = tuple(Option("food[Thai] =>", f" {text}", len(text)) for text in ("a pub", "x q z"))
    held_out = [
        Example("food[Thai] =>", " a pub", options, 0),
        Example("food[Thai] =>", " x q z", options, 1),
    ]
    settings = EvaluationSettings(generated=0, metrics=("option_accuracy", "rouge_l"))
    clients = [task.shard(client)[:4] for client in range(3)]
    evaluator = GlobalEvaluator(slotted[0], slotted[1], store, held_out, settings, clients)
    found = evaluator.measure(0, {}).metrics
    assert list(found) == ["option_accuracy", "client_loss_mean", "client_loss_worst_decile"]
    assert found["option_accuracy"] == 0.5
    alone = [
        GlobalEvaluator(slotted[0], slotted[1], store, examples, settings_of_loss()).measure(0, {}).loss
        for examples in clients
    ]
    assert found["client_loss_mean"] == pytest.approx(sum(alone) / 3, rel=1e-5)
    assert found["client_loss_worst_decile"] == pytest.approx(max(alone), rel=1e-5)


def settings_of_loss():
    return EvaluationSettings(max_length=96, generated=0, metrics=())


def test_a_response_ends_before_the_first_stop():
    assert before("one\n\nQuestion: two\nUser:", ("User:", "Question:")) == "one\n\n"
    assert before("one", ("Question:",)) == "one"
    assert before("one", ()) == "one"


def test_equal_prompts_are_generated_once_and_scored_against_all_references(slotted, store):
    prompt = "name[The Quiet Fox], food[Thai] => "
    settings = EvaluationSettings(generated=4, max_new_tokens=24, metrics=("rouge_l",))
    (response,) = GlobalEvaluator(slotted[0], slotted[1], store, [Example(prompt, "x")], settings).generate(
        {}, [Example(prompt, "x")]
    )
    held_out = [Example(prompt, "x", references=("unlike", response))] * 3
    evaluator = GlobalEvaluator(slotted[0], slotted[1], store, held_out, settings)
    assert evaluator.measure(0, {}).metrics["rouge_l"] == 1.0
