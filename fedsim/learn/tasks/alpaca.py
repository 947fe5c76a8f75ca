"""Alpaca: follow an instruction, with or without an input.

Source:
    Taori et al., "Stanford Alpaca", 2023, for file and prompts' layout: a JSON list of ``instruction``,
    ``input`` and ``output``. The self-instruct seed file is read too: ``instances`` in place of ``input``
    and ``output``, of which the first counts.
"""

from fedsim.learn.tasks.draft import Draft, TaskFormat
from fedsim.learn.tasks.rows import Row


def _draft(row: Row) -> Draft:
    instruction = row.text("instruction")
    given, output = _instance(row)
    middle = f"\n\n### Input:\n{given}" if given.strip() else ""
    return Draft(
        row,
        {"instruction": instruction, "input": given, "output": output},
        f"### Instruction:\n{instruction}{middle}\n\n### Response:",
        output,
    )


def _instance(row: Row) -> tuple[str, str]:
    """Return input and output, of the first instance where there are several."""
    if "instances" not in row.values:
        return row.optional_text("input"), row.text("output")
    instances = row.value("instances")
    if not isinstance(instances, list) or not instances or not isinstance(instances[0], dict):
        raise row.error("expected a list of at least one object in column instances")
    first = Row(row.path, row.number, instances[0])
    return first.optional_text("input"), first.text("output")


ALPACA = TaskFormat(
    name="alpaca",
    columns="instruction, input and output",
    draft=_draft,
    metrics=("rouge_l",),
    stop=("### Instruction:",),
)
