"""GSM8K: solve a word problem, and end with ``#### number``.

Source:
    Cobbe et al., "Training verifiers to solve math word problems", 2021: JSON lines with ``question`` and
    ``answer``. The calculator's annotations, ``<<...>>``, are part of the published answers and stay. Prompt
    of lm-evaluation-harness, without examples before it.
"""

from fedsim.learn.metrics import gsm8k_answer
from fedsim.learn.tasks.draft import Draft, TaskFormat
from fedsim.learn.tasks.rows import Row


def _draft(row: Row) -> Draft:
    question, answer = row.text("question"), row.text("answer")
    if "####" not in answer or gsm8k_answer(answer) is None:
        raise row.error("expected an answer that ends in '#### number'")
    fields = {"question": question, "answer": answer}
    return Draft(row, fields, f"Question: {question}\nAnswer:", answer)


GSM8K = TaskFormat(
    name="gsm8k",
    columns="question and answer",
    draft=_draft,
    metrics=("gsm8k_exact_match",),
    stop=("Question:",),
)
