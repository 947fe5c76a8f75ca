"""BoolQ: yes or no, with or without the passage.

Source:
    Clark et al., "BoolQ: exploring the surprising difficulty of natural yes/no questions", NAACL 2019: JSON
    lines with ``question``, ``passage`` and ``answer``; SuperGLUE calls the answer ``label``. The
    instruction form of LLM-Adapters (``instruction``, ``answer``, no passage) is read too. Prompt of
    lm-evaluation-harness.
"""

import re

from fedsim.learn.tasks.draft import Draft, TaskFormat
from fedsim.learn.tasks.rows import Row

CHOICES = ("no", "yes")
_INSTRUCTION = re.compile(r"question:\s*(.*?)\s*(?:\n+Answer format:.*)?$", re.DOTALL)


def _draft(row: Row) -> Draft:
    question, passage = _question(row), row.optional_text("passage")
    answer = int(row.truth("label" if "label" in row.values else "answer"))
    opening = f"{passage}\n" if passage else ""
    return Draft(
        row,
        {"question": question, "passage": passage},
        f"{opening}Question: {question}?\nAnswer:",
        CHOICES[answer],
        CHOICES,
        answer,
        CHOICES[answer],
    )


def _question(row: Row) -> str:
    if "question" in row.values or "instruction" not in row.values:
        return row.text("question").strip().rstrip("?")
    match = _INSTRUCTION.search(row.text("instruction"))
    if match is None:
        raise row.error("expected 'question: ...' in column instruction")
    return match[1].rstrip("?")


BOOLQ = TaskFormat(
    name="boolq",
    columns="question, answer and possibly passage",
    draft=_draft,
    metrics=("option_accuracy",),
)
