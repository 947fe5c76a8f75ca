"""Scores of generated text, against values worked out by hand."""

import pytest

from fedsim.errors import ScenarioError
from fedsim.learn.metrics import METRIC_NAMES, SCORERS, gsm8k_answer, score, worst_decile


def test_rouge_counts_shared_words_pairs_and_the_longest_common_run():
    found = score(["rouge_1", "rouge_2", "rouge_l"], ["the cat sat"], [["the cat lay down"]])
    assert found["rouge_1"] == pytest.approx(2 * 2 / (3 + 4))
    assert found["rouge_2"] == pytest.approx(2 * 1 / (2 + 3))
    assert found["rouge_l"] == pytest.approx(2 * 2 / (3 + 4))


def test_the_best_of_several_references_counts():
    references = [["something else entirely", "the cat sat"]]
    assert score(["rouge_l"], ["the cat sat"], references)["rouge_l"] == 1.0
    assert score(["exact_match"], ["The cat, sat."], references)["exact_match"] == 1.0


def test_bleu_is_perfect_for_a_reference_and_takes_uneven_numbers_of_them():
    texts = ["the quick brown fox jumps over", "a lazy dog sleeps all day long"]
    assert score(["bleu"], texts, [[texts[0]], ["another text", texts[1]]])["bleu"] == pytest.approx(100)
    assert score(["bleu"], ["nothing shared here at all"], [[texts[0]]])["bleu"] < 5


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("She makes 9 * 2 = $18.\n#### 18", "18"),
        ("#### 70,000", "70000"),
        ("so it is $1,234.50 in all.", "1234.5"),
        ("first 3, then 5.", "5"),
        ("#### -7.0", "-7"),
        ("#### 1\n\nQuestion: next? #### 2", "1"),
        ("no number", None),
        ("#### .", None),
        ("#### $12.", "12"),
    ],
)
def test_the_answer_of_a_word_problem_is_found(text, answer):
    assert gsm8k_answer(text) == answer


def test_word_problems_match_by_number_only():
    references = [["2 + 2 = 4\n#### 4"]]
    assert SCORERS["gsm8k_exact_match"](["it must be 4.00"], references) == 1.0
    assert SCORERS["gsm8k_exact_match"](["it must be 44"], references) == 0.0
    assert SCORERS["gsm8k_exact_match"](["nothing"], [["nothing"]]) == 0.0


def test_the_worst_decile_is_the_highest_tenth():
    assert worst_decile([float(index) for index in range(20)]) == 18.5
    assert worst_decile([3.0, 1.0]) == 3.0


def test_an_unknown_metric_is_refused():
    with pytest.raises(ScenarioError, match="got meteor"):
        score(["meteor"], ["a"], [["a"]])
    assert "option_accuracy_norm" in METRIC_NAMES
