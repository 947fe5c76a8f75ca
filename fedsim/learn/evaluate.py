"""How good is a global version? Loss and token accuracy on held-out targets, ROUGE-L of what it generates."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from rouge_score import rouge_scorer

from fedsim.learn.encode import IGNORED, Encoded, collate, encode, prompt
from fedsim.learn.example import Example
from fedsim.learn.model import LoadedModel
from fedsim.learn.peft_bridge import AdapterSlot
from fedsim.learn.versions import VersionStore
from fedsim.lora.factors import Adapter
from fedsim.method.messages import Evaluation


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """How to measure.

    Args:
        max_length: Longer examples are cut.
        batch_size: Examples per forward pass.
        generated: Examples of the fixed sample for generation; 0 for none.
        max_new_tokens: Longest response.
    """

    max_length: int = 96
    batch_size: int = 32
    generated: int = 32
    max_new_tokens: int = 64


class GlobalEvaluator:
    """Measures stored versions on held-out examples, always the same ones.

    Args:
        loaded: Base model and tokenizer.
        slot: Where the global adapter is loaded, frozen and in full.
        store: The versions.
        held_out: Examples that no client holds.
        settings: How to measure.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        slot: AdapterSlot,
        store: VersionStore,
        held_out: Sequence[Example],
        settings: EvaluationSettings,
    ) -> None:
        self._loaded = loaded
        self._slot = slot
        self._store = store
        self._settings = settings
        encoded = encode(loaded.tokenizer, held_out, settings.max_length)
        self._encoded = sorted(encoded, key=lambda item: len(item.ids))
        step = max(1, len(held_out) // max(1, settings.generated))
        self._sample = tuple(held_out[::step][: settings.generated])

    async def evaluate(self, version: int) -> Evaluation:
        """Measure a stored version."""
        return await asyncio.to_thread(self.measure, version, self._store.export(version))

    def measure(self, version: int, adapter: Adapter) -> Evaluation:
        """Measure an adapter under this version number."""
        with self._slot.loaded({}, adapter, 1.0), torch.inference_mode():
            loss, accuracy = self._teacher_forced()
            metrics = {"rouge_l": self._rouge_l()} if self._sample else {}
        return Evaluation(version, loss, accuracy, metrics)

    def generate(self, adapter: Adapter, examples: Sequence[Example]) -> list[str]:
        """Generate greedily; the responses without their prompts."""
        with self._slot.loaded({}, adapter, 1.0), torch.inference_mode():
            return self._generate(examples)

    def _teacher_forced(self) -> tuple[float, float]:
        """Loss and accuracy per target token."""
        size = self._settings.batch_size
        total_loss, num_right, num_tokens = 0.0, 0, 0
        for start in range(0, len(self._encoded), size):
            loss, right, tokens = self._score(self._encoded[start : start + size])
            total_loss, num_right, num_tokens = total_loss + loss, num_right + right, num_tokens + tokens
        return total_loss / num_tokens, num_right / num_tokens

    def _score(self, encoded: Sequence[Encoded]) -> tuple[float, int, int]:
        """Sum of losses, right predictions and number of target tokens."""
        device = self._loaded.device
        batch = collate(encoded, self._loaded.tokenizer.pad_token_id)
        logits = self._slot.model(
            input_ids=batch.input_ids.to(device), attention_mask=batch.attention_mask.to(device)
        ).logits[:, :-1]
        labels = batch.labels[:, 1:].to(device)
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        counted = labels != IGNORED
        right = (logits.argmax(dim=-1) == labels) & counted
        return float(loss), int(right.sum()), int(counted.sum())

    def _rouge_l(self) -> float:
        """Mean F-measure of ROUGE-L over the fixed sample."""
        scorer = rouge_scorer.RougeScorer(["rougeL"])
        responses: list[str] = []
        for start in range(0, len(self._sample), self._settings.batch_size):
            responses += self._generate(self._sample[start : start + self._settings.batch_size])
        scores = [
            scorer.score(example.ref, response)["rougeL"].fmeasure
            for example, response in zip(self._sample, responses, strict=True)
        ]
        return float(sum(scores) / len(scores))

    def _generate(self, examples: Sequence[Example]) -> list[str]:
        """Decode greedily; prompts are padded on the left, so that all responses begin together."""
        tokenizer, device = self._loaded.tokenizer, self._loaded.device
        inputs = tokenizer(
            [prompt(example) for example in examples],
            return_tensors="pt",
            padding=True,
            padding_side="left",
            return_token_type_ids=False,
        ).to(device)
        output = self._slot.model.generate(
            **inputs,
            max_new_tokens=self._settings.max_new_tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        responses = output[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in tokenizer.batch_decode(responses, skip_special_tokens=True)]
