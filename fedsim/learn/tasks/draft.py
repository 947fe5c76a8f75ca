"""What does an adapter say about one row? Its default prompt, the right answer, the options, and its group.

An adapter is one file: a `TaskFormat` with a function from row to `Draft`. Everything else (templates,
splits, masking, options from labels) is the same for all and lives in `fedsim.learn.tasks.assemble`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedsim.learn.tasks.rows import Row, read_rows


@dataclass(frozen=True, slots=True)
class Draft:
    """One row as an adapter understands it.

    Args:
        row: Where it comes from.
        fields: Names that a template of the user's can use, beside the row's own columns.
        prompt: The default prompt.
        target: The right answer.
        choices: Answers to choose from; none where the task asks for free text.
        answer: Index of the right choice.
        group: What kind of example it is, for non-IID shards; empty where the data set has no labels.
        contexts: Where not the answers differ but what stands before one and the same answer: the contexts.
    """

    row: Row
    fields: Mapping[str, str]
    prompt: str
    target: str
    choices: tuple[str, ...] = ()
    answer: int | None = None
    group: str = ""
    contexts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskFormat:
    """How one data set is read, prompted and measured.

    Args:
        name: As a scenario names it.
        columns: Expected columns, for people.
        draft: Reads one row.
        metrics: What is measured beside loss and token accuracy, where the user names nothing.
        stop: Generated text ends before the first of these.
        labels_are_choices: Whether the groups of all rows are the options of every row.
        many_references: Whether held-out rows with equal prompts are references of one another.
        read: Reads a file into rows.
    """

    name: str
    columns: str
    draft: Callable[[Row], Draft]
    metrics: tuple[str, ...]
    stop: tuple[str, ...] = ()
    labels_are_choices: bool = False
    many_references: bool = False
    read: Callable[[Path], Sequence[Row]] = field(default=read_rows)
