"""Templates, masking, references and the held-out part."""

import json

import numpy as np
import pytest

from fedsim.errors import ModelError, ScenarioError
from fedsim.learn.tasks.assemble import ReadSettings, read_examples
from fedsim.learn.tasks.catalogue import TASKS


@pytest.fixture
def e2e_file(tmp_path):
    path = tmp_path / "train.csv"
    rows = [f'"name[P{i % 20}]","text {i}",user {i % 3}' for i in range(60)]
    path.write_text("\n".join(["mr,ref,user", *rows]) + "\n")
    return path


def read(path, held_out=None, name="e2e_nlg", **settings):
    rng = np.random.default_rng(settings.pop("seed", 0))
    return read_examples(TASKS[name], path, held_out, ReadSettings(**settings), rng)


def test_the_held_out_share_parts_prompts_not_rows(e2e_file):
    train, held_out = read(e2e_file, held_out_share=0.25)
    assert len(train) + len(held_out) == 60
    assert len({example.prompt for example in held_out}) == 5
    assert not {example.prompt for example in train} & {example.prompt for example in held_out}
    assert read(e2e_file, held_out_share=0.25) == (train, held_out)
    assert read(e2e_file, held_out_share=0.25, seed=1)[1] != held_out
    with pytest.raises(ScenarioError, match=r"20 different prompts are too few to hold out a share of 0\.01"):
        read(e2e_file, held_out_share=0.01)


def test_equal_prompts_are_references_of_one_another(e2e_file):
    _, held_out = read(e2e_file, e2e_file)
    assert held_out[0].references == ("text 0", "text 20", "text 40")
    assert held_out[0].accepted == held_out[20].accepted


def test_a_template_replaces_the_prompt(e2e_file):
    train, _ = read(e2e_file, template="Describe {mr} for {user}:")
    assert train[0].prompt == "Describe name[P0] for user 0:"
    for template, match in (
        ("{mood}", "row 1 has no 'mood'; it has mr, ref, user"),
        ("{mr", "expected names"),
    ):
        with pytest.raises(ScenarioError, match=match):
            read(e2e_file, template=template)


def test_options_follow_the_template_and_a_sentence_task_takes_none(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"goal": f"g{i}", "sol1": "a", "sol2": "b", "label": 0} for i in range(10)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    train, _ = read(path, name="piqa", template="Goal: {goal}\n")
    assert train[0].options[1].context == train[0].prompt == "Goal: g0"
    assert train[0].options[1].continuation == "\nb"
    row = {"sentence": "A saw B as _ left.", "option1": "A", "option2": "B", "answer": "1"}
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(ScenarioError, match="winogrande scores its own sentences"):
        read(path, path, name="winogrande", template="{sentence}")


def test_masking_is_a_matter_of_training_only(e2e_file):
    train, held_out = read(e2e_file, answer_only=False)
    assert all(example.learn_prompt for example in train)
    assert not any(example.learn_prompt for example in held_out)
    assert not any(example.learn_prompt for example in read(e2e_file)[0])


def test_a_column_makes_groups(e2e_file):
    assert {example.group for example in read(e2e_file, column="user")[0]} == {"user 0", "user 1", "user 2"}
    with pytest.raises(ModelError, match="row 1: expected the column owner"):
        read(e2e_file, column="owner")


def test_one_label_is_no_classification(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text,label\na,x\nb,x\n")
    with pytest.raises(ScenarioError, match="at least two different labels, found 'x' only"):
        read(path, path, name="text_classification")
