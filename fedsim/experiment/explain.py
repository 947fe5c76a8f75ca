"""How is a refused value told to the user? One line: what was expected, what was found, the nearest way out.

Knows pydantic's error kinds, not the sections themselves.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from fedsim.errors import nearest
from fedsim.experiment.yaml_source import Key


class MisfitError(ValueError):
    """Two values of a scenario contradict each other; raised inside validators.

    Args:
        key: Dotted key of the value to change.
        message: What was expected there.
    """

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def key_of(error: ErrorDetails) -> Key:
    """Return the key path that an error is about."""
    cause = error.get("ctx", {}).get("error")
    return tuple(cause.key.split(".")) if isinstance(cause, MisfitError) else error["loc"]


def message_of(error: ErrorDetails, root: type[BaseModel]) -> str:
    """Say what is wrong with one value.

    Args:
        error: As pydantic reports it.
        root: The model that was validated, to name known keys.
    """
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        known = known_keys(root, error["loc"][:-1])
        return "unknown key" + (nearest(str(error["loc"][-1]), known) or f"; known: {', '.join(known)}")
    if kind == "missing":
        return "required"
    if kind == "value_error":
        return str(context["error"])
    return _expected(kind, context, error["input"])


def _expected(kind: str, context: Mapping[str, Any], found: Any) -> str:
    """Word the common kinds; whatever is left keeps pydantic's own sentence."""
    if kind == "literal_error":
        choices = context["expected"].replace("'", '"')
        near = nearest(found, choices.split('"')[1::2]) if isinstance(found, str) else ""
        return f"expected {choices}, got {show(found)}{near}"
    wording = _WORDING.get(kind)
    if wording is None:
        return f"{kind.replace('_', ' ')}, got {show(found)}"
    return f"expected {wording(context)}, got {show(found)}"


def show(value: Any) -> str:
    """Write a value as YAML would, cut short."""
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def known_keys(root: type[BaseModel], key: Iterable[str | int]) -> list[str]:
    """Return the YAML keys of a section; empty where the section takes any key."""
    model: type[BaseModel] | None = root
    for part in key:
        model = _section_under(model, str(part)) if model else None
    return [field.alias or name for name, field in model.model_fields.items()] if model else []


def _section_under(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """Step from a section to the section that one of its keys holds."""
    fields = {field.alias or field_name: field for field_name, field in model.model_fields.items()}
    if name not in fields:  # a key of a mapping, such as a device class
        return model
    annotation = fields[name].annotation
    kinds = (annotation, *get_args(annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


_WORDING: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "int_type": lambda _: "a whole number",
    "float_type": lambda _: "a number",
    "finite_number": lambda _: "a finite number",
    "bool_type": lambda _: "true or false",
    "string_type": lambda _: "text (put quotes around it)",
    "string_too_short": lambda _: "some text",
    "string_too_long": lambda context: f"at most {context['max_length']} characters",
    "path_type": lambda _: "a file path",
    "list_type": lambda _: "a list",
    "dict_type": lambda _: "a section with keys",
    "model_type": lambda _: "a section with keys",
    "greater_than": lambda context: f"more than {context['gt']:g}",
    "greater_than_equal": lambda context: f"at least {context['ge']:g}",
    "less_than": lambda context: f"less than {context['lt']:g}",
    "less_than_equal": lambda context: f"at most {context['le']:g}",
}
