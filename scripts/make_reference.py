"""Write docs/scenario-reference.md and docs/cli.md from the code; with --check, fail where they are old.

python scripts/make_reference.py [--check]
"""

import argparse
import ast
import inspect
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from typer.main import get_command

from fedsim.cli.examples import EXAMPLES, EXIT_CODES
from fedsim.cli.main import app
from fedsim.experiment.scenario import Scenario
from fedsim.method.catalogue import BUILDERS
from fedsim.method.describe import describe_all

DOCS = Path(__file__).parents[1] / "docs"
MADE = "<!-- Made by scripts/make_reference.py; change the code, not this file. -->"
UNITS = {
    "_s": "duration, e.g. `90 s`",
    "_bytes": "size, e.g. `2 GiB`",
    "_flops": "rate, e.g. `50 GFLOP/s`",
}
PLAIN = {int: "whole number", float: "number", str: "word", bool: "`true` or `false`", Path: "file"}
LARGE = {2**63: "2^63"}
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
CONTAINERS: Mapping[Any, str] = {tuple: "list", dict: "map from names"}

INTRO = """
Every key that a scenario may have. A scenario is one YAML file; `extends: other.yaml` takes over what another
file says. Unknown keys are refused with the nearest known one, and so is a value that has no effect.
`fedsim check FILE` prints a scenario with every default filled in, `fedsim new NAME` writes a first one, and
`--set section.key=value` changes one value for one run.
"""
CLI_INTRO = """
`fedsim COMMAND --help` says the same in a terminal. Every listing takes `--json`; colours go to a terminal
only, and `NO_COLOR=1` turns them off there too. `python -m fedsim` is the same program.
"""
COMPLETION = """
`fedsim --install-completion` sets it up for the shell it is called from; `fedsim --show-completion` prints
what it would install.
"""


# --- the scenario -----------------------------------------------------------------------------------------


def scenario_page() -> str:
    """Return the reference of the scenario."""
    intro = " ".join(INTRO.split())
    parts = ["# Scenario reference", MADE, intro, *_section("", Scenario), *_methods()]
    return "\n\n".join(parts) + "\n"


def _section(path: str, model: type[BaseModel]) -> Iterator[str]:
    words, meanings = _docstring(model)
    if path:
        yield f"{'#' * (2 + path.count('.'))} `{path}`"
        yield words
    rows, inner = [], []
    for name, field in model.model_fields.items():
        key = field.alias or name
        below = _model_in(field.annotation)
        dotted = f"{path}.{key}" if path else key
        if below is not None and not _is_mapping(field.annotation):
            inner.append((dotted, below))
            rows.append(f"| `{key}` | [section](#{_anchor(dotted)}) | {_default(field)} | {meanings[name]} |")
            continue
        if below is not None:
            inner.append((f"{dotted}.NAME", below))
        rows.append(f"| `{key}` | {_type(name, field)} | {_default(field)} | {meanings[name]} |")
    yield "\n".join(["| key | value | default | meaning |", "|---|---|---|---|", *rows])
    for dotted, below in inner:
        yield from _section(dotted, below)


def _anchor(dotted: str) -> str:
    return dotted.lower().replace(".", "")


def _docstring(model: type[BaseModel]) -> tuple[str, Mapping[str, str]]:
    """Split a docstring into its first words and what it says of each field."""
    text = inspect.getdoc(model) or ""
    found = _arguments(text)
    missing = set(model.model_fields) - set(found)
    if missing:
        raise SystemExit(f"{model.__name__}: no words about {', '.join(sorted(missing))}")
    return _escaped(" ".join(text.partition("\nArgs:\n")[0].split())), found


def _arguments(text: str) -> dict[str, str]:
    """Read the section on arguments of a docstring."""
    found: dict[str, str] = {}
    for line in inspect.cleandoc(text.partition("\nArgs:\n")[2]).splitlines():
        name, colon, rest = line.partition(": ")
        if colon and re.fullmatch(r"\w+", name):
            found[name] = rest
        elif found:
            found[list(found)[-1]] += f" {line.strip()}"
    return {name: _escaped(words) for name, words in found.items()}


def _escaped(text: str) -> str:
    return re.sub(r",? ?YAML ``\w+``", "", text).replace("``", "`").replace("|", "\\|")


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)


def _is_mapping(annotation: Any) -> bool:
    return get_origin(annotation) is dict


def _type(name: str, field: Any) -> str:
    """Say which values a field takes."""
    unit = next((words for end, words in UNITS.items() if name.endswith(end) and field.alias), None)
    return unit or ", ".join([_kind(field.annotation), *_bounds(field.metadata)])


def _kind(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in CONTAINERS:
        return CONTAINERS[origin]
    if hasattr(annotation, "__metadata__"):
        return ", ".join([_kind(annotation.__origin__), *_bounds(annotation.__metadata__)])
    if inner:
        return " or ".join(dict.fromkeys(_kind(part) for part in inner if part is not type(None)))
    return PLAIN.get(annotation, "section")


def _bounds(conditions: Iterable[Any]) -> list[str]:
    """Tell bounds, which pydantic keeps one by one, or several in one condition."""
    flat = [inner for item in conditions for inner in (getattr(item, "metadata", None) or [item])]
    return [
        f"{sign} {LARGE.get(getattr(item, key), getattr(item, key))}"
        for item in flat
        for key, sign in BOUNDS.items()
        if hasattr(item, key)
    ]


def _default(field: Any) -> str:
    value = field.default
    if value is PydanticUndefined:
        return "**required**" if field is not Scenario.model_fields["name"] else "the file's name"
    if isinstance(value, BaseModel) or value in ({}, ""):
        return ""
    return "none" if value is None else f"`{json.dumps(value)}`"


def _methods() -> Iterator[str]:
    """Say which options each method takes, as its builder says it."""
    yield "## Options of methods"
    yield "`method.options` takes what the method itself knows. In brackets: the default."
    names = [method.name for method in describe_all() if method.name in BUILDERS]
    rows = [f"| `{name}` | {_options(BUILDERS[name])} |" for name in names]
    yield "\n".join(["| method | options |", "|---|---|", *rows])


def _options(target: str) -> str:
    """Read options from the builder's words, or from the class that it fills."""
    module, _, function = target.partition(":")
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{module}: no such module")
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    known = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    words = ast.get_docstring(known[function]) or ""
    filled = re.search(r"`(\w+Options)`", words)
    if filled is None:
        return _escaped(" ".join(words.partition("options:")[2].partition("\n\n")[0].split()))
    fields = known[filled[1]]
    meanings = _arguments(ast.get_docstring(fields) or "")
    defaults = {
        node.target.id: ast.unparse(node.value) for node in fields.body if isinstance(node, ast.AnnAssign)
    }
    return " ".join(f"`{name}` ({defaults[name]}): {words}" for name, words in meanings.items())


# --- the command line -------------------------------------------------------------------------------------


def cli_page() -> str:
    """Return the reference of the command line."""
    rows = [f"| {code} | {words} |" for code, words in EXIT_CODES.items()]
    parts = [
        "# Command line",
        MADE,
        " ".join(CLI_INTRO.split()),
        "## Exit codes",
        "\n".join(["| code | meaning |", "|---|---|", *rows]),
        "## Shell completion",
        " ".join(COMPLETION.split()),
    ]
    for name, command in _commands(get_command(app)):
        parts += _command(name, command)
    return "\n\n".join(parts) + "\n"


LONG = ("export", "eval", "calibrate", "sensitivity", "serve", "join")
"""Commands that need a trained run, or the machine for minutes; their own tests run them."""


def _commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def _command(name: str, command: Any) -> Iterator[str]:
    yield f"## `fedsim {name}`"
    yield " ".join((command.help or "").split())
    excuse, kind = (
        ("<!-- not run: it trains, or waits for others -->\n", "sh") if name in LONG else ("", "bash")
    )
    yield f"{excuse}```{kind}\n" + "\n".join(_example(*example) for example in EXAMPLES[name]) + "\n```"
    rows = [_parameter(parameter) for parameter in command.params]
    yield "\n".join(["| parameter | meaning |", "|---|---|", *rows])


def _example(words: str, purpose: str) -> str:
    return f"{words}  # {purpose}"


def _parameter(parameter: Any) -> str:
    if parameter.param_type_name == "option":
        shown = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    else:
        shown = f"`{parameter.metavar or parameter.name.upper()}`"
    return f"| {shown} | {_escaped(' '.join((parameter.help or '').split()))} |"


PAGES = {"scenario-reference.md": scenario_page, "cli.md": cli_page}


def main() -> None:
    """Write the pages, or say which are not current."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where a page is old")
    check = parser.parse_args().check
    old = [name for name, page in PAGES.items() if _read(DOCS / name) != page()]
    if not check:
        for name in old:
            (DOCS / name).write_text(PAGES[name](), encoding="utf-8")
    elif old:
        sys.exit(f"not current: {', '.join(old)}; run python scripts/make_reference.py")


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


if __name__ == "__main__":
    main()
