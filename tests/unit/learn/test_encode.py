"""Token ids: what counts in the loss, what is cut, what is padded."""

from dataclasses import replace

import torch

from fedsim.learn.encode import IGNORED, Encoded, collate, encode, encode_answers
from fedsim.learn.example import Example

EXAMPLE = Example("house[h1], name[The Quiet Fox], food[Thai] => ", "The Quiet Fox serves Thai food.")


def test_the_loss_counts_the_target_and_its_end_only(loaded):
    (item,) = encode(loaded.tokenizer, [EXAMPLE], 96)
    batch = collate([item], 0)
    counted = batch.labels[0] != IGNORED
    assert not counted[: item.prompt_length].any()
    assert loaded.tokenizer.decode(batch.labels[0][counted]) == EXAMPLE.target + "<eos>"
    assert loaded.tokenizer.decode(item.ids[: item.prompt_length]) == EXAMPLE.prompt


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


JOINED = Example("Question: is Thai food served by the riverside?\nAnswer:", " Thai food, midnight.")


def test_a_seam_without_a_blank_is_tokenised_as_running_text(loaded):
    (item,) = encode(loaded.tokenizer, [JOINED], 96)
    whole = loaded.tokenizer(JOINED.prompt + JOINED.target)["input_ids"]
    assert list(item.ids) == [*whole, loaded.tokenizer.eos_token_id]
    assert loaded.tokenizer.decode(item.ids[item.prompt_length : -1]) == JOINED.target


def test_a_long_question_loses_its_beginning_and_keeps_the_answer(loaded):
    (whole,) = encode(loaded.tokenizer, [JOINED], 96)
    target = whole.ids[whole.prompt_length :]
    (cut,) = encode(loaded.tokenizer, [JOINED], len(whole.ids) - 5)
    assert cut.ids == whole.ids[5:]
    assert cut.ids[cut.prompt_length :] == target
    (short,) = encode(loaded.tokenizer, [JOINED], 4)
    assert (len(short.ids), short.prompt_length) == (4, 2)


def test_the_prompt_can_be_learned_and_is_never_measured(loaded):
    example = replace(JOINED, learn_prompt=True)
    (item,) = encode(loaded.tokenizer, [example], 96)
    assert item.prompt_length == 1
    assert encode_answers(loaded.tokenizer, [example], 96) == encode(loaded.tokenizer, [JOINED], 96)
