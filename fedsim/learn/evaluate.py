"""How good is a global version? Its loss on answers, what it prefers, what it generates, whom it fails."""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fedsim.learn.choices import option_accuracies, score_options
from fedsim.learn.encode import IGNORED, Encoded, collate, encode_answers
from fedsim.learn.example import Example
from fedsim.learn.metrics import OPTION_METRICS, score, worst_decile
from fedsim.learn.model import LoadedModel, uncheckpointed
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
        metrics: Beside loss and token accuracy; names of `fedsim.learn.metrics.METRIC_NAMES`.
        stop: A response ends before the first of these texts.
    """

    max_length: int = 96
    batch_size: int = 32
    generated: int = 32
    max_new_tokens: int = 64
    metrics: tuple[str, ...] = ("rouge_l",)
    stop: tuple[str, ...] = ()


class AdapterEvaluator:
    """Measures adapters on held-out examples, always the same ones.

    Args:
        loaded: Base model and tokenizer.
        slot: Where an adapter is loaded, frozen and in full.
        held_out: Examples that no client holds.
        settings: How to measure.
        clients: Examples of the clients whose losses are measured one by one; none where empty.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        slot: AdapterSlot,
        held_out: Sequence[Example],
        settings: EvaluationSettings,
        clients: Sequence[Sequence[Example]] = (),
    ) -> None:
        self._loaded = loaded
        self._slot = slot
        self._settings = settings
        self._encoded = self._by_length(held_out)
        self._clients = [self._by_length(examples) for examples in clients]
        wanted = [name for name in settings.metrics if name not in OPTION_METRICS]
        self._generated_metrics = tuple(wanted) if settings.generated else ()
        self._option_metrics = tuple(name for name in settings.metrics if name in OPTION_METRICS)
        self._choices = held_out if self._option_metrics else ()
        distinct = list({example.prompt: example for example in reversed(held_out)}.values())[::-1]
        step = max(1, len(distinct) // max(1, settings.generated))
        self._sample = tuple(distinct[::step][: settings.generated])

    def measure(self, version: int, adapter: Adapter) -> Evaluation:
        """Measure an adapter under this version number."""
        with self._slot.loaded(adapter), uncheckpointed(self._slot.model), torch.inference_mode():
            loss, accuracy = self._teacher_forced(self._encoded)
            metrics = {**self._of_text(), **self._of_options(), **self._of_clients()}
        return Evaluation(version, loss, accuracy, metrics)

    def generate(self, adapter: Adapter, examples: Sequence[Example]) -> list[str]:
        """Generate greedily; the responses without their prompts."""
        with self._slot.loaded(adapter), uncheckpointed(self._slot.model), torch.inference_mode():
            return self._generate(examples)

    def _by_length(self, examples: Sequence[Example]) -> list[Encoded]:
        encoded = encode_answers(self._loaded.tokenizer, examples, self._settings.max_length)
        return sorted(encoded, key=lambda item: len(item.ids))

    def _teacher_forced(self, encoded: Sequence[Encoded]) -> tuple[float, float]:
        """Loss and accuracy per target token."""
        size = self._settings.batch_size
        total_loss, num_right, num_tokens = 0.0, 0, 0
        for start in range(0, len(encoded), size):
            loss, right, tokens = self._score(encoded[start : start + size])
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

    def _of_text(self) -> dict[str, float]:
        """Scores of generated responses over the fixed sample."""
        if not self._generated_metrics:
            return {}
        responses: list[str] = []
        for start in range(0, len(self._sample), self._settings.batch_size):
            responses += self._generate(self._sample[start : start + self._settings.batch_size])
        references = [example.accepted for example in self._sample]
        return score(self._generated_metrics, responses, references)

    def _of_options(self) -> dict[str, float]:
        """Accuracies of preferred options."""
        if not self._choices:
            return {}
        found = option_accuracies(
            score_options(
                self._slot.model,
                self._loaded.tokenizer,
                self._choices,
                max_length=self._settings.max_length,
                batch_size=self._settings.batch_size,
                device=self._loaded.device,
            )
        )
        return {name: found[name] for name in self._option_metrics}

    def _of_clients(self) -> dict[str, float]:
        """Mean of the clients' own losses, and of the worst tenth of them."""
        if not self._clients:
            return {}
        losses = [self._teacher_forced(encoded)[0] for encoded in self._clients]
        return {
            "client_loss_mean": sum(losses) / len(losses),
            "client_loss_worst_decile": worst_decile(losses),
        }

    def _generate(self, examples: Sequence[Example]) -> list[str]:
        """Decode greedily; prompts are padded on the left, so that all responses begin together."""
        tokenizer, device = self._loaded.tokenizer, self._loaded.device
        inputs = tokenizer(
            [example.prompt for example in examples],
            return_tensors="pt",
            padding=True,
            padding_side="left",
            return_token_type_ids=False,
        ).to(device)
        room = self._room()
        inputs = {name: inputs[name][:, -room:] for name in ("input_ids", "attention_mask")}
        output = self._slot.model.generate(
            **inputs,
            max_new_tokens=self._settings.max_new_tokens,
            do_sample=False,
            num_beams=1,
            use_cache=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        responses = output[:, inputs["input_ids"].shape[1] :]
        texts = tokenizer.batch_decode(responses, skip_special_tokens=True)
        return [before(text.strip(), self._settings.stop).strip() for text in texts]

    def _room(self) -> int:
        """Longest prompt that leaves the model positions to answer in; longer ones lose their beginning."""
        positions = getattr(self._loaded.model.config, "max_position_embeddings", None)
        return sys.maxsize if positions is None else max(1, positions - self._settings.max_new_tokens)


class GlobalEvaluator(AdapterEvaluator):
    """Measures stored versions.

    Args:
        loaded: Base model and tokenizer.
        slot: Where the global adapter is loaded, frozen and in full.
        store: The versions.
        held_out: Examples that no client holds.
        settings: How to measure.
        clients: Examples of the clients whose losses are measured one by one; none where empty.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        slot: AdapterSlot,
        store: VersionStore,
        held_out: Sequence[Example],
        settings: EvaluationSettings,
        clients: Sequence[Sequence[Example]] = (),
    ) -> None:
        super().__init__(loaded, slot, held_out, settings, clients)
        self._store = store

    async def evaluate(self, version: int) -> Evaluation:
        """Measure a stored version."""
        return await asyncio.to_thread(self.measure, version, self._store.export(version))


def before(text: str, stops: Sequence[str]) -> str:
    """Cut a text where the first of these begins."""
    ends = [text.find(stop) for stop in stops if stop in text]
    return text[: min(ends)] if ends else text
