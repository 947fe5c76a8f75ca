"""Classification of texts, your own data: which label fits?

Columns ``text`` (or ``sentence``) and ``label``. Every label that occurs, in training or held-out rows, is
an option.
"""

from fedsim.learn.tasks.draft import Draft, TaskFormat
from fedsim.learn.tasks.rows import Row


def _draft(row: Row) -> Draft:
    text, label = row.text("text", "sentence"), str(row.value("label")).strip()
    if row.value("label") is None or not label:
        raise row.error("expected a label in column label, found nothing")
    return Draft(row, {"text": text, "label": label}, f"{text}\nLabel:", label, group=label)


TEXT_CLASSIFICATION = TaskFormat(
    name="text_classification",
    columns="text and label",
    draft=_draft,
    metrics=("option_accuracy",),
    labels_are_choices=True,
)
