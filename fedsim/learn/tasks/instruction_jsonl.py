"""Instructions and answers, your own data: whatever pairs of texts there are.

Columns ``instruction`` (or ``prompt``, or ``question``) and ``output`` (or ``response``, ``completion``,
``answer``), perhaps ``input``; or ``messages``, a list of ``role`` and ``content`` that ends with the
assistant's.
"""

from typing import Any

from fedsim.learn.tasks.draft import Draft, TaskFormat
from fedsim.learn.tasks.rows import Row


def _draft(row: Row) -> Draft:
    if "messages" in row.values:
        return _conversation(row, row.value("messages"))
    instruction = row.text("instruction", "prompt", "question").rstrip()
    given = row.optional_text("input")
    output = row.text("output", "response", "completion", "answer")
    prompt = f"{instruction}\n{given.rstrip()}\n" if given.strip() else f"{instruction}\n"
    return Draft(row, {"instruction": instruction, "input": given, "output": output}, prompt, output)


def _conversation(row: Row, messages: Any) -> Draft:
    good = isinstance(messages, list) and len(messages) > 1 and all(_is_message(item) for item in messages)
    if not good or messages[-1]["role"] != "assistant":
        raise row.error("expected a list of role and content in column messages, the last of role assistant")
    lines = [f"{message['role']}: {message['content']}" for message in messages[:-1]]
    prompt = "\n".join([*lines, "assistant:"])
    return Draft(row, {"conversation": "\n".join(lines)}, prompt, messages[-1]["content"])


def _is_message(item: Any) -> bool:
    return (
        isinstance(item, dict)
        and all(isinstance(item.get(key), str) for key in ("role", "content"))
        and bool(item["content"].strip())
    )


INSTRUCTION_JSONL = TaskFormat(
    name="instruction_jsonl",
    columns="instruction and output, or messages",
    draft=_draft,
    metrics=("rouge_l",),
)
