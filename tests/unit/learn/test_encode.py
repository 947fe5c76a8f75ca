"""Token ids: what counts in the loss, what is cut, what is padded."""

import torch

from fedsim.learn.encode import IGNORED, Encoded, collate, encode
from fedsim.learn.example import Example

EXAMPLE = Example("house[h1], name[The Quiet Fox], food[Thai]", "The Quiet Fox serves Thai food.")


def test_the_loss_counts_the_target_and_its_end_only(loaded):
    (item,) = encode(loaded.tokenizer, [EXAMPLE], 96)
    batch = collate([item], 0)
    counted = batch.labels[0] != IGNORED
    assert not counted[: item.prompt_length].any()
    assert loaded.tokenizer.decode(batch.labels[0][counted]) == EXAMPLE.ref + "<eos>"
    assert loaded.tokenizer.decode(item.ids[: item.prompt_length]) == f"{EXAMPLE.mr} => "


def test_long_examples_are_cut_and_keep_a_target_token(loaded):
    for length in (4, 12, 20):
        (item,) = encode(loaded.tokenizer, [EXAMPLE], length)
        assert len(item.ids) == length
        assert item.prompt_length < length


def test_padding_is_masked():
    batch = collate([Encoded((5, 6, 7), 1), Encoded((5, 6, 7, 8, 9), 2)], pad_id=0)
    assert batch.input_ids.tolist() == [[5, 6, 7, 0, 0], [5, 6, 7, 8, 9]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 0, 0], [1] * 5]
    assert batch.labels.tolist() == [[IGNORED, 6, 7, IGNORED, IGNORED], [IGNORED, IGNORED, 7, 8, 9]]
    assert batch.labels.dtype == torch.long
