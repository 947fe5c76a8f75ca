"""E2E NLG: say a restaurant's attributes in a sentence.

Source:
    Novikova, Dušek and Rieser, "The E2E dataset: new challenges for end-to-end generation", SIGDIAL 2017.
    Files ``trainset.csv``, ``devset.csv`` and ``testset_w_refs.csv``: columns ``mr`` and ``ref``, several
    rows per ``mr``.
"""

import re

from fedsim.learn.tasks.draft import Draft, TaskFormat
from fedsim.learn.tasks.rows import Row

_NAME = re.compile(r"\bname\[([^\]]*)\]")


def _draft(row: Row) -> Draft:
    meaning, reference = row.text("mr", "meaning_representation"), row.text("ref", "human_reference")
    match = _NAME.search(meaning)
    return Draft(
        row,
        {"mr": meaning, "ref": reference},
        f"{meaning} =>",
        reference,
        group=match[1] if match else meaning,
    )


E2E_NLG = TaskFormat(
    name="e2e_nlg",
    columns="mr and ref",
    draft=_draft,
    metrics=("rouge_l", "bleu"),
    stop=("\n",),
    many_references=True,
)
