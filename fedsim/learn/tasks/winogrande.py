"""WinoGrande: who or what does the blank stand for?

Source:
    Sakaguchi et al., "WinoGrande: an adversarial Winograd schema challenge at scale", AAAI 2020: JSON lines
    with ``sentence``, ``option1``, ``option2`` and ``answer`` (1 or 2). The instruction form of LLM-Adapters
    is read too. Options are scored by what follows the blank, as in lm-evaluation-harness.
"""

import re

from fedsim.learn.tasks.draft import Draft, TaskFormat
from fedsim.learn.tasks.rows import Row

_INSTRUCTION = re.compile(
    r"sentence:\s*(?P<sentence>.*?)\s*\n+"
    r"Option1:\s*(?P<first>.*?)\s+Option2:\s*(?P<second>.*?)\s+Answer format:",
    re.DOTALL,
)


def _draft(row: Row) -> Draft:
    sentence, options, answer = _parts(row)
    before, blank, after = sentence.partition("_")
    if not blank or not after.strip():
        raise row.error("expected a sentence that goes on after a blank written as _")
    contexts = tuple(before + option for option in options)
    fields = {"sentence": sentence, "option1": options[0], "option2": options[1]}
    return Draft(row, fields, contexts[answer], after.strip(), options, answer, contexts=contexts)


def _parts(row: Row) -> tuple[str, tuple[str, str], int]:
    """Return sentence, options and the index of the right one."""
    if "sentence" in row.values or "instruction" not in row.values:
        options = (row.text("option1"), row.text("option2"))
        return row.text("sentence"), options, row.index("answer", 2, first=1)
    match = _INSTRUCTION.search(row.text("instruction"))
    if match is None:
        raise row.error("expected 'sentence: ... Option1: ... Option2: ...' in column instruction")
    answer = row.text("answer").strip().lower()
    if answer not in {"option1", "option2"}:
        raise row.error(f"expected option1 or option2 in column answer, found {answer!r}")
    return match["sentence"], (match["first"], match["second"]), int(answer == "option2")


WINOGRANDE = TaskFormat(
    name="winogrande",
    columns="sentence, option1, option2 and answer",
    draft=_draft,
    metrics=("option_accuracy",),
)
