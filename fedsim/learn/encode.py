"""How does text become tensors? Prompt, target, padding; the loss counts the target only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedsim.learn.example import Example

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example as token ids.

    Args:
        ids: Prompt, then target, cut at the maximum length.
        prompt_length: How many of them, from the first on, the loss does not count.
    """

    ids: tuple[int, ...]
    prompt_length: int


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Examples of one step, padded on the right; all three tensors are batch × length."""

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor


def encode(tokenizer: Any, examples: Sequence[Example], max_length: int) -> list[Encoded]:
    """Tokenise examples for training.

    The loss counts the target, and the prompt too where an example says
    so.

    Every target ends with the end of the sequence. What is too long is cut: targets lose their end, and where
    prompt and target are tokenised together, the prompt loses its beginning first, down to half the length.
    """
    masked = encode_answers(tokenizer, examples, max_length)
    return [
        Encoded(item.ids, min(1, item.prompt_length)) if example.learn_prompt else item
        for example, item in zip(examples, masked, strict=True)
    ]


def encode_answers(tokenizer: Any, examples: Sequence[Example], max_length: int) -> list[Encoded]:
    """Tokenise examples so that the targets alone count, whatever training counts."""
    encoded = []
    pairs = split_ids(tokenizer, [(example.prompt, example.target) for example in examples])
    for example, (prompt_ids, target_ids) in zip(examples, pairs, strict=True):
        ended = [*target_ids, tokenizer.eos_token_id]
        if _parted(example.prompt):
            kept = prompt_ids[: max_length - 1]
        else:
            room = max(max_length - len(ended), max_length // 2)
            kept = prompt_ids[max(0, len(prompt_ids) - room) :]
        encoded.append(Encoded(tuple((kept + ended)[:max_length]), len(kept)))
    return encoded


def split_ids(tokenizer: Any, pairs: Sequence[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
    """Tokenise texts and what follows them.

    Where the first text ends in a blank, or is empty, both are tokenised apart. Elsewhere they are tokenised
    together and cut where the first text's own tokens end, so that a merge across the seam looks as it does
    in running text.

    Returns:
        Per pair, ids of the first text and of the second.

    Source:
        The seam follows lm-evaluation-harness, whose contexts never end in a blank.
    """
    firsts = [list(ids) for ids in tokenizer([first for first, _ in pairs])["input_ids"]] if pairs else []
    answers = []
    for (first, second), first_ids in zip(pairs, firsts, strict=True):
        if _parted(first):
            second_ids = tokenizer(second, add_special_tokens=False)["input_ids"]
        else:
            second_ids = _without_end(tokenizer, tokenizer(first + second)["input_ids"])[len(first_ids) :]
        answers.append((_without_end(tokenizer, first_ids), list(second_ids)))
    return answers


def _parted(text: str) -> bool:
    """Whether a text is tokenised apart from what follows it."""
    return not text or text[-1].isspace()


def _without_end(tokenizer: Any, ids: Sequence[int]) -> list[int]:
    """Drop an end of sequence that a tokenizer adds by itself: the text goes on."""
    ends = len(ids) > 1 and ids[-1] == tokenizer.eos_token_id
    return list(ids[:-1] if ends else ids)


def collate(encoded: Sequence[Encoded], pad_id: int) -> Batch:
    """Pad to the longest of these examples."""
    length = max(len(item.ids) for item in encoded)
    input_ids = torch.full((len(encoded), length), pad_id, dtype=torch.long)
    attention_mask = torch.zeros((len(encoded), length), dtype=torch.long)
    labels = torch.full((len(encoded), length), IGNORED, dtype=torch.long)
    for row, item in enumerate(encoded):
        end = len(item.ids)
        input_ids[row, :end] = torch.tensor(item.ids)
        attention_mask[row, :end] = 1
        labels[row, item.prompt_length : end] = input_ids[row, item.prompt_length : end]
    return Batch(input_ids, attention_mask, labels)
