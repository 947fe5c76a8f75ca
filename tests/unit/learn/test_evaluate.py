"""Measures of a global version."""

import math

import pytest
import torch

from fedsim.learn.encode import encode
from fedsim.learn.evaluate import EvaluationSettings, GlobalEvaluator
from fedsim.learn.example import Example
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
        Example("name[The Quiet Fox], food[Thai]", ""),
        Example("house[h3], name[Blue Lion], area[riverside], eatType[pub], hours[midnight], dish[D12A]", ""),
    ]
    together = evaluator.generate({}, examples)
    assert together == [evaluator.generate({}, [example])[0] for example in examples]
    for example, response in zip(examples, together, strict=True):
        assert "=>" not in response
        assert "[" not in response
        ids = loaded.tokenizer(f"{example.mr} => ", return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            for _ in range(SETTINGS.max_new_tokens):
                best = loaded.model(input_ids=ids).logits[0, -1].argmax()
                if best == loaded.tokenizer.eos_token_id:
                    break
                ids = torch.cat([ids, best[None, None]], dim=1)
        prompt_length = len(loaded.tokenizer(f"{example.mr} => ")["input_ids"])
        assert response == loaded.tokenizer.decode(ids[0, prompt_length:]).strip()


def test_generation_can_be_left_out(slotted, store, task):
    settings = EvaluationSettings(batch_size=8, generated=0)
    found = GlobalEvaluator(slotted[0], slotted[1], store, task.held_out[:8], settings).measure(0, {})
    assert found.metrics == {}
