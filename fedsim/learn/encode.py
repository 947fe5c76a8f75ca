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
        prompt_length: How many of them belong to the prompt.
    """

    ids: tuple[int, ...]
    prompt_length: int


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Examples of one step, padded on the right; all three tensors are batch × length."""

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor


def prompt(example: Example) -> str:
    """Return what the model sees before it has to speak."""
    return f"{example.mr} => "


def encode(tokenizer: Any, examples: Sequence[Example], max_length: int) -> list[Encoded]:
    """Tokenise prompts and targets apart, end every target, and cut at the maximum length.

    At least one target token is kept, whatever the length of the prompt.
    """
    prompts = tokenizer([prompt(example) for example in examples])["input_ids"]
    targets = tokenizer([example.ref for example in examples], add_special_tokens=False)["input_ids"]
    encoded = []
    for prompt_ids, target_ids in zip(prompts, targets, strict=True):
        kept = prompt_ids[: max_length - 1]
        ids = (kept + target_ids + [tokenizer.eos_token_id])[:max_length]
        encoded.append(Encoded(tuple(ids), len(kept)))
    return encoded


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
