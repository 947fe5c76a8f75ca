"""HellaSwag: which of four endings continues the text?

Source:
    Zellers et al., "HellaSwag: can a machine really finish your sentence?", ACL 2019. The published JSON
    lines have ``ctx_a``, ``ctx_b``, ``activity_label``, ``endings`` and ``label``; a text file with six
    lines a task (context, label, four endings) is in use too. Prompt and clean-up are those of
    lm-evaluation-harness.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from fedsim.errors import ModelError
from fedsim.learn.tasks.draft import Draft, TaskFormat
from fedsim.learn.tasks.rows import Row, read_lines, read_rows

NUM_ENDINGS = 4
_LINES_PER_TASK = 2 + NUM_ENDINGS
_BRACKETS = re.compile(r"\[.*?\]")
_ACTIVITY = re.compile(r"^([^:]{1,80}): ")


def _read(path: Path) -> Sequence[Row]:
    """Read JSON lines or the text form, by the file's name."""
    if ".txt" not in path.suffixes:
        return read_rows(path)
    lines = read_lines(path)
    while lines and not lines[-1].strip():
        lines.pop()
    whole, rest = divmod(len(lines), _LINES_PER_TASK)
    if rest or not whole:
        raise ModelError(
            f"{path}: row {whole + 1}: expected {_LINES_PER_TASK} lines a task (context, label, "
            f"{NUM_ENDINGS} endings), found {rest}"
        )
    return [_text_row(path, number, lines) for number in range(whole)]


def _text_row(path: Path, number: int, lines: Sequence[str]) -> Row:
    context, label, *endings = lines[number * _LINES_PER_TASK : (number + 1) * _LINES_PER_TASK]
    return Row(path, number + 1, {"query": context, "label": label, "endings": endings})


def _draft(row: Row) -> Draft:
    query, group = _query(row)
    endings = tuple(_clean(ending) for ending in row.texts("endings", NUM_ENDINGS))
    label = row.index("label", NUM_ENDINGS)
    return Draft(row, {"query": query}, query, endings[label], endings, label, group)


def _query(row: Row) -> tuple[str, str]:
    """Return context and activity."""
    if "query" in row.values:
        query = row.text("query").strip()
        match = _ACTIVITY.match(query)
        return query, match[1] if match else ""
    activity, second = row.text("activity_label"), row.optional_text("ctx_b")
    return _clean(f"{activity}: {row.text('ctx_a', 'ctx')} {second.capitalize()}"), activity


def _clean(text: str) -> str:
    """Take out the marks of the WikiHow part, as lm-evaluation-harness does."""
    titled = text.strip().replace(" [title]", ". ")
    return _BRACKETS.sub("", titled).replace("  ", " ")


HELLASWAG = TaskFormat(
    name="hellaswag",
    columns="ctx_a, ctx_b, activity_label, endings and label",
    draft=_draft,
    metrics=("option_accuracy", "option_accuracy_norm"),
    read=_read,
)
