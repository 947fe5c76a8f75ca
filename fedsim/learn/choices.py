"""Which option does a model prefer? Log-likelihoods of answers after their contexts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fedsim.errors import ScenarioError
from fedsim.learn.encode import IGNORED, Encoded, collate, split_ids
from fedsim.learn.example import Example


@dataclass(frozen=True, slots=True)
class OptionScores:
    """How likely each option of one example is.

    Args:
        log_likelihoods: Nats per option, summed over its tokens.
        lengths: Characters per option.
        answer: Index of the right one.
    """

    log_likelihoods: tuple[float, ...]
    lengths: tuple[int, ...]
    answer: int

    @property
    def preferred(self) -> int:
        """The most likely option, the first of equals."""
        return _first_best(self.log_likelihoods)

    @property
    def preferred_by_length(self) -> int:
        """The option most likely per character, the first of equals."""
        pairs = zip(self.log_likelihoods, self.lengths, strict=True)
        return _first_best([total / max(1, length) for total, length in pairs])


def option_accuracies(scores: Sequence[OptionScores]) -> dict[str, float]:
    """Share of examples whose right option is preferred, as it is and per character.

    Source:
        ``acc`` and ``acc_norm`` of lm-evaluation-harness.
    """
    plain = sum(item.preferred == item.answer for item in scores)
    by_length = sum(item.preferred_by_length == item.answer for item in scores)
    return {"option_accuracy": plain / len(scores), "option_accuracy_norm": by_length / len(scores)}


def score_options(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    *,
    max_length: int,
    batch_size: int,
    device: torch.device,
) -> list[OptionScores]:
    """Score every option of every example.

    A context and its continuation are tokenised as in `fedsim.learn.encode.split_ids`; a pair that is too
    long loses the beginning of its context. Pairs are batched by length, which changes no score but for
    rounding.

    Args:
        model: The causal language model with whatever adapter it carries.
        tokenizer: Its tokenizer.
        examples: Each with options and an answer.
        max_length: Longest pair in tokens.
        batch_size: Pairs per forward pass.
        device: Where the model lives.

    Raises:
        ScenarioError: If an example has no options.

    Source:
        Multiple-choice scoring of lm-evaluation-harness: no token is added behind the continuation.
    """
    bare = [example.prompt for example in examples if not example.options or example.answer is None]
    if bare:
        raise ScenarioError(f"expected examples with options to choose from, got {bare[0][:80]!r} without")
    options = [(option.context, option.continuation) for example in examples for option in example.options]
    encoded = [_pair(first, second, max_length) for first, second in split_ids(tokenizer, options)]
    order = sorted(range(len(encoded)), key=lambda index: (-len(encoded[index].ids), index))
    totals = [0.0] * len(encoded)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        found = _log_likelihoods(model, [encoded[index] for index in chosen], tokenizer.pad_token_id, device)
        for index, total in zip(chosen, found, strict=True):
            totals[index] = total
    return _regrouped(examples, totals)


def _pair(context: list[int], continuation: list[int], max_length: int) -> Encoded:
    """Keep the end of a pair that is too long."""
    ids = (context + continuation)[-max_length:]
    return Encoded(tuple(ids), max(1, len(ids) - len(continuation)))


def _log_likelihoods(
    model: Any, encoded: Sequence[Encoded], pad_id: int, device: torch.device
) -> list[float]:
    batch = collate(encoded, pad_id)
    logits = model(
        input_ids=batch.input_ids.to(device), attention_mask=batch.attention_mask.to(device)
    ).logits[:, :-1]
    labels = batch.labels[:, 1:].to(device)
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return [-total for total in losses.view(labels.shape).sum(dim=1).tolist()]


def _regrouped(examples: Sequence[Example], totals: Sequence[float]) -> list[OptionScores]:
    scores, start = [], 0
    for example in examples:
        end = start + len(example.options)
        lengths = tuple(option.length for option in example.options)
        scores.append(OptionScores(tuple(totals[start:end]), lengths, example.answer or 0))
        start = end
    return scores


def _first_best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda index: (values[index], -index))
