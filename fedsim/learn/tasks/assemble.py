"""How do drafts become examples? Templates, masking, options, references, and which rows are held out."""

import string
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedsim.errors import ScenarioError
from fedsim.learn.example import Example, Option
from fedsim.learn.tasks.draft import Draft, TaskFormat


@dataclass(frozen=True, slots=True)
class ReadSettings:
    """What a user may choose about reading.

    Args:
        template: Prompt with names of columns in braces; the format's own where None.
        answer_only: Whether training counts the loss of the answer alone.
        column: Column whose values are the groups of examples; the format's own groups where None.
        held_out_share: Share of distinct prompts that is held out where no file of held-out rows is given.
    """

    template: str | None = None
    answer_only: bool = True
    column: str | None = None
    held_out_share: float = 0.2


def read_examples(
    form: TaskFormat,
    train_file: Path,
    held_out_file: Path | None,
    settings: ReadSettings,
    rng: np.random.Generator,
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Read training and held-out examples.

    Without a file of its own the held-out part is drawn from the training file, by prompt: rows with equal
    prompts stay together, so that no held-out prompt was trained on.

    Args:
        form: The data set's format.
        train_file: Rows to train on.
        held_out_file: Rows to measure on, or None.
        settings: Template, masking, groups, share.
        rng: Draws the held-out prompts.

    Returns:
        Training examples and held-out examples, in file order.

    Raises:
        ModelError: If a file cannot be read, with its row.
        ScenarioError: If the template names what no row has, or there are too few rows to hold some out.
    """
    train = _drafts(form, train_file, settings)
    if held_out_file is None:
        train, held_out = _split(train, settings.held_out_share, rng, train_file)
    else:
        held_out = _drafts(form, held_out_file, settings)
    labels = tuple(sorted({draft.target for draft in (*train, *held_out)}))
    if form.labels_are_choices and len(labels) < 2:
        raise ScenarioError(f"{train_file}: expected at least two different labels, found {labels[0]!r} only")
    choices = labels if form.labels_are_choices else ()
    references = _references(held_out) if form.many_references else {}
    return (
        tuple(_example(draft, choices, (), learn_prompt=not settings.answer_only) for draft in train),
        tuple(_example(draft, choices, references.get(draft.prompt, ())) for draft in held_out),
    )


def _drafts(form: TaskFormat, path: Path, settings: ReadSettings) -> list[Draft]:
    drafts = [form.draft(row) for row in form.read(path)]
    return [_adjusted(form, draft, settings) for draft in drafts]


def _adjusted(form: TaskFormat, draft: Draft, settings: ReadSettings) -> Draft:
    """Apply the user's template and column of groups."""
    prompt = draft.prompt if settings.template is None else _filled(form, draft, settings.template)
    group = draft.group if settings.column is None else _group(draft, settings.column)
    return Draft(
        draft.row, draft.fields, prompt, draft.target, draft.choices, draft.answer, group, draft.contexts
    )


def _filled(form: TaskFormat, draft: Draft, template: str) -> str:
    if draft.contexts:
        raise ScenarioError(f"task.prompt: {form.name} scores its own sentences and takes no template")
    row = {key: str(value) for key, value in draft.row.values.items() if isinstance(value, str | int | float)}
    known = {**row, **draft.fields}
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise ScenarioError(f"task.prompt: expected names in braces, got {template!r}: {error}") from error
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ScenarioError(
            f"task.prompt: {draft.row.path}: row {draft.row.number} has no {unknown[0]!r}; it has "
            f"{', '.join(sorted(known))}"
        )
    return template.format_map(known)


def _group(draft: Draft, column: str) -> str:
    value = draft.row.value(column)
    if value is None or not str(value).strip():
        raise draft.row.error(f"expected a value in column {column}, found nothing")
    return str(value)


def _split(
    drafts: Sequence[Draft], share: float, rng: np.random.Generator, path: Path
) -> tuple[list[Draft], list[Draft]]:
    prompts = list(dict.fromkeys(draft.prompt for draft in drafts))
    count = round(share * len(prompts))
    if not 0 < count < len(prompts):
        raise ScenarioError(
            f"{path}: {len(prompts)} different prompts are too few to hold out a share of {share:g}; name a "
            "file of held-out rows, or change the share"
        )
    chosen = {prompts[index] for index in rng.permutation(len(prompts))[:count].tolist()}
    return (
        [draft for draft in drafts if draft.prompt not in chosen],
        [draft for draft in drafts if draft.prompt in chosen],
    )


def _references(drafts: Sequence[Draft]) -> Mapping[str, tuple[str, ...]]:
    texts: dict[str, list[str]] = defaultdict(list)
    for draft in drafts:
        texts[draft.prompt].append(draft.target)
    return {prompt: tuple(dict.fromkeys(found)) for prompt, found in texts.items()}


def _example(
    draft: Draft, labels: tuple[str, ...], references: tuple[str, ...], *, learn_prompt: bool = False
) -> Example:
    """Move the blank at the seam to the answer, so that both tokenise as in running text."""
    stem = draft.prompt.rstrip()
    gap = draft.prompt[len(stem) :] or " "
    choices = labels or draft.choices
    answer = labels.index(draft.target) if labels else draft.answer
    if draft.contexts:
        options = tuple(
            Option(context.rstrip(), f" {draft.target}", len(choice))
            for context, choice in zip(draft.contexts, choices, strict=True)
        )
    else:
        options = tuple(Option(stem, gap + choice, len(choice)) for choice in choices)
    return Example(
        prompt=stem,
        target=gap + draft.target,
        options=options,
        answer=answer if options else None,
        references=references or (draft.target,),
        group=draft.group,
        learn_prompt=learn_prompt,
    )
