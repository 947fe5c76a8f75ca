"""Each data set's own file format: hand-written rows, broken rows, and the real samples where they are."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from fedsim.errors import ModelError
from fedsim.learn.tasks.assemble import ReadSettings, read_examples
from fedsim.learn.tasks.catalogue import TASKS

ROOT = Path(__file__).parents[4]
REAL = Path(os.environ.get("FEDSIM_REAL_DATA", ROOT.parent / "shared" / "data_real"))


def read(name, path, **settings):
    """All rows as held-out examples, so that none is left out."""
    return read_examples(TASKS[name], path, path, ReadSettings(**settings), np.random.default_rng(0))[1]


def one(tmp_path, name, row):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    return read(name, path)[0]


HELLASWAG = {
    "activity_label": "Cooking",
    "ctx_a": "A man [header] boils water.",
    "ctx_b": "he",
    "endings": ["waits.", "adds [step] salt.", "sings.", "leaves."],
    "label": "1",
}
PIQA = {"goal": "Open a jar", "sol1": "twist", "sol2": "throw", "label": 1}
WINOGRANDE = {
    "sentence": "Ann thanked Bea because _ helped.",
    "option1": "Ann",
    "option2": "Bea",
    "answer": "2",
}
BOOLQ = {"question": "is water wet", "passage": "Water is wet.", "answer": True}
GSM8K = {"question": "2 + 2?", "answer": "It is 4.\n#### 4"}
ALPACA = {"instruction": "Translate.", "input": "Haus", "output": "house"}


@pytest.mark.parametrize(
    ("name", "row", "prompt", "target", "options", "answer"),
    [
        ("e2e_nlg", {"mr": "name[Fox]", "ref": "Fox."}, "name[Fox] =>", " Fox.", (), None),
        (
            "alpaca",
            ALPACA,
            "### Instruction:\nTranslate.\n\n### Input:\nHaus\n\n### Response:",
            " house",
            (),
            None,
        ),
        (
            "alpaca",
            {"instruction": "Say hi.", "instances": [{"input": "", "output": "hi"}]},
            "### Instruction:\nSay hi.\n\n### Response:",
            " hi",
            (),
            None,
        ),
        (
            "hellaswag",
            HELLASWAG,
            "Cooking: A man boils water. He",
            " adds salt.",
            (" waits.", " adds salt.", " sings.", " leaves."),
            1,
        ),
        ("piqa", PIQA, "Question: Open a jar\nAnswer:", " throw", (" twist", " throw"), 1),
        ("boolq", BOOLQ, "Water is wet.\nQuestion: is water wet?\nAnswer:", " yes", (" no", " yes"), 1),
        (
            "boolq",
            {
                "instruction": "Please answer, question: is it?\n\nAnswer format: true/false",
                "answer": "false",
            },
            "Question: is it?\nAnswer:",
            " no",
            (" no", " yes"),
            0,
        ),
        ("winogrande", WINOGRANDE, "Ann thanked Bea because Bea", " helped.", (" helped.", " helped."), 1),
        ("gsm8k", GSM8K, "Question: 2 + 2?\nAnswer:", " It is 4.\n#### 4", (), None),
        ("instruction_jsonl", {"prompt": "Say hi.", "completion": "hi"}, "Say hi.", "\nhi", (), None),
        (
            "instruction_jsonl",
            {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]},
            "user: hi\nassistant:",
            " ho",
            (),
            None,
        ),
    ],
)
def test_a_row_becomes_prompt_target_and_options(tmp_path, name, row, prompt, target, options, answer):
    example = one(tmp_path, name, row)
    assert (example.prompt, example.target, example.answer) == (prompt, target, answer)
    assert tuple(option.continuation for option in example.options) == options


def test_winogrande_compares_contexts(tmp_path):
    example = one(tmp_path, "winogrande", WINOGRANDE)
    contexts = [option.context for option in example.options]
    assert contexts == ["Ann thanked Bea because Ann", "Ann thanked Bea because Bea"]


def test_the_length_of_an_option_leaves_out_the_blank_before_it(tmp_path):
    assert [option.length for option in one(tmp_path, "piqa", PIQA).options] == [5, 5]


@pytest.mark.parametrize(
    ("name", "row", "match"),
    [
        ("e2e_nlg", {"mr": "name[Fox]", "ref": ""}, "expected text in column ref, found nothing"),
        ("e2e_nlg", {"mr": "name[Fox]"}, "expected the column ref or human_reference, found mr"),
        ("alpaca", {**ALPACA, "output": None}, "expected text in column output"),
        ("alpaca", {"instruction": "a", "instances": []}, "expected a list of at least one object"),
        ("hellaswag", {**HELLASWAG, "label": "4"}, "whole number from 0 to 3 in column label, found '4'"),
        ("hellaswag", {**HELLASWAG, "endings": ["a"]}, "expected 4 texts in column endings"),
        ("piqa", {**PIQA, "label": 2}, "whole number from 0 to 1"),
        ("boolq", {**BOOLQ, "answer": "maybe"}, "expected true or false in column answer, found 'maybe'"),
        ("boolq", {"instruction": "is it?", "answer": "true"}, "expected 'question: ...'"),
        ("winogrande", {**WINOGRANDE, "sentence": "no blank"}, "a blank written as _"),
        ("winogrande", {**WINOGRANDE, "answer": ""}, "whole number from 1 to 2"),
        ("gsm8k", {**GSM8K, "answer": "4"}, "ends in '#### number'"),
        ("text_classification", {"text": "a", "label": None}, "expected a label"),
        ("instruction_jsonl", {"messages": [{"role": "user", "content": "a"}]}, "the last of role assistant"),
    ],
)
def test_a_broken_row_is_named(tmp_path, name, row, match):
    with pytest.raises(ModelError, match=r"rows\.jsonl: row 1: ") as caught:
        one(tmp_path, name, row)
    assert match in str(caught.value)


def test_piqa_labels_lie_in_a_file_beside(tmp_path):
    rows = [{key: value for key, value in PIQA.items() if key != "label"}] * 2
    (tmp_path / "valid.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ModelError, match=r"expected a column label, or labels in .*valid-labels\.lst"):
        read("piqa", tmp_path / "valid.jsonl")
    (tmp_path / "valid-labels.lst").write_text("0\n")
    with pytest.raises(ModelError, match=r"valid-labels.lst: row 2: expected 2 labels"):
        read("piqa", tmp_path / "valid.jsonl")
    (tmp_path / "valid-labels.lst").write_text("0\n1\n")
    assert [example.answer for example in read("piqa", tmp_path / "valid.jsonl")] == [0, 1]


def test_hellaswag_has_a_text_form(tmp_path):
    path = tmp_path / "val.txt"
    path.write_text("Cooking: A man boils water. he\n2\na\nb\nc\nd\n")
    (example,) = read("hellaswag", path)
    assert (example.prompt, example.answer, example.group) == ("Cooking: A man boils water. he", 2, "Cooking")
    path.write_text("Cooking: a\n2\na\nb\nc\nd\nCooking: b\n1\n")
    with pytest.raises(ModelError, match="row 2: expected 6 lines a task"):
        read("hellaswag", path)


def test_labels_of_all_rows_are_the_options(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text,label\nfine,good\nbad,poor\nso so,fair\n")
    examples = read("text_classification", path)
    assert {tuple(option.continuation for option in example.options) for example in examples} == {
        (" fair", " good", " poor")
    }
    assert [example.answer for example in examples] == [1, 2, 0]


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real data in {REAL}; set FEDSIM_REAL_DATA")
@pytest.mark.parametrize(
    ("name", "path", "rows"),
    [
        ("e2e_nlg", "e2e/devset.csv", 4672),
        ("e2e_nlg", "e2e/testset_w_refs.csv", 4693),
        ("alpaca", "alpaca_1k/alpaca_data_1k.json", 1000),
        ("alpaca", "alpaca_seed/seed_tasks.jsonl", 175),
        pytest.param("hellaswag", "hellaswag/hellaswag_val_full.txt.bz2", 10_042, marks=pytest.mark.slow),
        pytest.param("boolq", "boolq/train.json.gz", 9427, marks=pytest.mark.slow),
        ("boolq", "boolq/test.json.gz", 3270),
        ("piqa", "piqa/valid.jsonl", 1838),
        ("winogrande", "winogrande/winogrande-test.json.gz", 1267),
        ("gsm8k", "gsm8k/test.jsonl", 1319),
        pytest.param("gsm8k", "gsm8k/train.jsonl.gz", 7473, marks=pytest.mark.slow),
    ],
)
def test_real_samples_are_read_to_the_last_row(name, path, rows):
    examples = read(name, REAL / path)
    assert len(examples) == rows
    assert all(example.prompt and example.target[0] in " \n" for example in examples)
    with_options = "option_accuracy" in TASKS[name].metrics
    assert all(bool(example.options) == with_options for example in examples)
    if with_options:
        answers = {example.answer for example in examples}
        assert answers == set(range(len(examples[0].options)))
