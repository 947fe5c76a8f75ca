"""PIQA: which of two ways reaches the goal?

Source:
    Bisk et al., "PIQA: reasoning about physical commonsense in natural language", AAAI 2020: JSON lines with
    ``goal``, ``sol1`` and ``sol2``, and beside them a file of labels, one a line: ``train-labels.lst`` for
    ``train.jsonl``. Files that carry a ``label`` column need none. Prompt of lm-evaluation-harness.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fedsim.errors import ModelError
from fedsim.learn.tasks.draft import Draft, TaskFormat
from fedsim.learn.tasks.rows import Row, read_lines, read_rows


def _read(path: Path) -> Sequence[Row]:
    rows = read_rows(path)
    if "label" in rows[0].values:
        return rows
    label_file = path.with_name(f"{path.name.split('.')[0]}-labels.lst")
    if not label_file.is_file():
        raise ModelError(f"{path}: expected a column label, or labels in {label_file}; found neither")
    labels = [line for line in read_lines(label_file) if line.strip()]
    if len(labels) != len(rows):
        raise ModelError(
            f"{label_file}: row {min(len(labels), len(rows)) + 1}: expected {len(rows)} labels, one per row "
            f"of {path.name}, found {len(labels)}"
        )
    return [
        replace(row, values={**row.values, "label": label}) for row, label in zip(rows, labels, strict=True)
    ]


def _draft(row: Row) -> Draft:
    goal, solutions = row.text("goal"), (row.text("sol1"), row.text("sol2"))
    label = row.index("label", 2)
    fields = {"goal": goal, "sol1": solutions[0], "sol2": solutions[1]}
    return Draft(row, fields, f"Question: {goal}\nAnswer:", solutions[label], solutions, label)


PIQA = TaskFormat(
    name="piqa",
    columns="goal, sol1, sol2 and label",
    draft=_draft,
    metrics=("option_accuracy", "option_accuracy_norm"),
    read=_read,
)
