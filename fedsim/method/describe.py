"""What does each method do, and whose is it? One line and its source, read from the file, not loaded."""

import ast
import re
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from fedsim.errors import ScenarioError
from fedsim.method.catalogue import BUILDERS, ENTRY_POINTS, method_names


@dataclass(frozen=True, slots=True)
class Description:
    """One method, for people.

    Args:
        name: As in a scenario.
        summary: The first sentence of its file.
        source: Authors, title, venue and number, up to the first colon of the details; empty if it has none.
    """

    name: str
    summary: str
    source: str


def describe(name: str) -> Description:
    """Read what the file of a method says of itself.

    Raises:
        ScenarioError: If there is no such method, or its file cannot be found.
    """
    module = _modules().get(name)
    if module is None:
        raise ScenarioError(f"method: unknown name {name!r}; known are {', '.join(method_names())}")
    found = find_spec(module)
    if found is None or found.origin is None:
        raise ScenarioError(f"method {name}: no such module {module!r}; install the package that has it")
    text = ast.get_docstring(ast.parse(Path(found.origin).read_text(encoding="utf-8"))) or ""
    return Description(name, _first_sentence(text, name), _source(text))


def describe_all() -> tuple[Description, ...]:
    """Describe every method that can be built, in the order of their names."""
    return tuple(describe(name) for name in method_names())


def _modules() -> dict[str, str]:
    """Method name -> module that builds it; fedsim's own win."""
    theirs = {entry.name: entry.module for entry in entry_points(group=ENTRY_POINTS)}
    return theirs | {name: target.partition(":")[0] for name, target in BUILDERS.items()}


def _first_sentence(text: str, name: str) -> str:
    line = " ".join(text.partition("\n\n")[0].split())
    return re.sub(rf"^{re.escape(name)}: ", "", line, flags=re.IGNORECASE)


def _source(text: str) -> str:
    found = re.search(r"^Source:\n((?: {4}.*\n?)+)", text, flags=re.MULTILINE)
    if found is None:
        return ""
    flat = " ".join(found.group(1).split())
    cited = re.match(r'(?:"[^"]*"|[^":])*', flat)  # a colon inside a title does not end it
    return flat if cited is None else cited.group(0)
