"""How is a scenario file read, and where in it does each value stand?

Plain data only: YAML 1.2 without tags, duplicate keys or unbounded nesting. Every value keeps the place it
came from, so that an error can name a line. Nothing here knows what the keys mean.
"""

import difflib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, ReusedAnchorWarning, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from fedsim.errors import ScenarioError

Key = tuple[str | int, ...]

MAX_BYTES = 1_000_000
MAX_DEPTH = 12
MAX_VALUES = 20_000

_TAG = "tag:yaml.org,2002:"
_SCALARS: dict[str, Callable[[str], Any]] = {
    "str": str,
    "int": lambda text: int(text.replace("_", ""), 0 if text.lstrip("+-")[:2] in {"0x", "0o"} else 10),
    "float": lambda text: float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan").lower()),
    "bool": lambda text: text.lower() == "true",
    "null": lambda _: None,
}


@dataclass(frozen=True, slots=True)
class Source:
    """Values and the place of each.

    Args:
        values: Nested mappings, lists and scalars.
        places: Key path -> ``file:line`` or ``--set key=value``; the empty path is the whole.
    """

    values: dict[str, Any]
    places: dict[Key, str]

    def place(self, key: Key) -> str:
        """Return the place of a value, or of the nearest section around it."""
        while key and key not in self.places:
            key = key[:-1]
        return self.places[key]


def read_source(path: Path, name: str | None = None) -> Source:
    """Read one YAML file.

    Args:
        path: The file.
        name: How messages call it; the path itself by default.

    Raises:
        ScenarioError: If the file is missing, too large, not UTF-8 or not a mapping of plain values.
    """
    name = name or str(path)
    values, places = parse(_text(path, name), lambda line: f"{name}:{line}")
    if values is None:
        raise ScenarioError(f"{name}:1: expected sections such as `fleet:`, the file is empty")
    if not isinstance(values, dict):
        raise ScenarioError(f"{name}:1: expected sections such as `fleet:`, got plain text or a list")
    return Source(values, places)


def parse(text: str, place: Callable[[int], str]) -> tuple[Any, dict[Key, str]]:
    """Read YAML text into plain values.

    Args:
        text: The document.
        place: Line number -> how messages name the place.

    Returns:
        The values, and key path -> place.

    Raises:
        ScenarioError: If the text is not YAML, or holds more than plain data.
    """
    loader = YAML(typ="safe", pure=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ReusedAnchorWarning)  # YAML lets a later anchor take over a name
            root = loader.compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = 1 if mark is None else mark.line + 1
        raise ScenarioError(f"{place(line)}: not valid YAML: {error.problem or error.context}") from error
    except YAMLError as error:
        raise ScenarioError(f"{place(1)}: not valid YAML: {str(error).splitlines()[0]}") from error
    except RecursionError as error:
        raise ScenarioError(f"{place(1)}: nested deeper than {MAX_DEPTH} levels") from error
    places: dict[Key, str] = {(): place(1)}
    return (None if root is None else _convert(root, (), places, place)), places


def merge(below: Source, above: Source) -> Source:
    """Lay one source over another: sections merge, every other value replaces what lies below."""
    values = dict(below.values)
    places = {**below.places, **{key: where for key, where in above.places.items() if key}}
    _merge_into(values, above.values)
    return Source(values, places)


def override(source: Source, dotted: str, text: str, shown: str | None = None) -> Source:
    """Set one value, as ``--set key=value`` does.

    Args:
        source: What to change; left as it is.
        dotted: Key path, for instance ``server.deadline``.
        text: The value, read as YAML.
        shown: How messages write the value; `text` itself by default.

    Raises:
        ScenarioError: If the key is malformed, leads through a plain value, or the value is not YAML.
    """
    label = f"--set {dotted}={text if shown is None else shown}"
    key = tuple(dotted.split("."))
    if not all(key):
        raise ScenarioError(f"{label}: expected a key such as server.deadline before the equals sign")
    values, inner_places = parse(text, lambda _: label)
    section: Any = source.values
    for depth, part in enumerate(key[:-1]):
        section = section.get(part) if isinstance(section, dict) else None
        if section is not None and not isinstance(section, dict):
            raise ScenarioError(f"{label}: {'.'.join(key[: depth + 1])} is a plain value and has no keys")
    for part in reversed(key):
        values = {part: values}
    places = {key + inner_key: label for inner_key in inner_places}
    sections = (key[:depth] for depth in range(1, len(key)))
    places.update({section: label for section in sections if section not in source.places})
    return merge(source, Source(values, places))


def _beside(path: Path) -> str:
    """Suggest the scenario in the same folder that is named nearly so; the ending says nothing."""
    known = {other.stem: other for other in sorted(path.parent.glob("*.yaml"))}
    found = difflib.get_close_matches(path.stem, known, n=1, cutoff=0.8)
    return f'; did you mean "{known[found[0]]}"?' if found else ""


def _text(path: Path, name: str) -> str:
    """Read a file as UTF-8, within the size limit."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise ScenarioError(f"{name}: no such file{_beside(path)}") from error
    except OSError as error:
        raise ScenarioError(f"{name}: cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise ScenarioError(f"{name}: larger than {MAX_BYTES} bytes; a scenario is a page of text")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ScenarioError(
            f"{name}:{line}: expected UTF-8 text, got byte 0x{data[error.start]:02x}"
        ) from error


def _convert(node: Node, key: Key, places: dict[Key, str], place: Callable[[int], str]) -> Any:
    """Turn a YAML node into plain values and note the place of each."""
    where = place(node.start_mark.line + 1)
    places.setdefault(key, where)
    if len(places) > MAX_VALUES:
        raise ScenarioError(f"{where}: more than {MAX_VALUES} values; are anchors nested?")
    if len(key) > MAX_DEPTH:
        raise ScenarioError(f"{where}: nested deeper than {MAX_DEPTH} levels")
    if isinstance(node, MappingNode) and node.tag == f"{_TAG}map":
        return _convert_mapping(node, key, places, place)
    if isinstance(node, SequenceNode) and node.tag == f"{_TAG}seq":
        return [_convert(item, (*key, index), places, place) for index, item in enumerate(node.value)]
    kind = str(node.tag).removeprefix(_TAG)
    if not isinstance(node, ScalarNode) or kind not in _SCALARS:
        raise ScenarioError(f"{where}: {kind} is not plain data; quote text and leave tags out")
    return _scalar(node, kind, where)


def _scalar(node: ScalarNode, kind: str, where: str) -> Any:
    if any("\ud800" <= character <= "\udfff" for character in node.value):
        raise ScenarioError(f"{where}: expected text, got half of a surrogate pair")
    try:
        return _SCALARS[kind](node.value)
    except ValueError as error:
        raise ScenarioError(f"{where}: cannot read {node.value!r} as {kind}") from error


def _convert_mapping(
    node: MappingNode, key: Key, places: dict[Key, str], place: Callable[[int], str]
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        where = place(key_node.start_mark.line + 1)
        if not isinstance(key_node, ScalarNode):
            raise ScenarioError(f"{where}: expected a plain key")
        name = str(key_node.value)
        if key_node.tag == f"{_TAG}merge":
            raise ScenarioError(f"{where}: merge keys (<<) are not supported; use `extends:`")
        if name in values:
            raise ScenarioError(f"{where}: {'.'.join(map(str, (*key, name)))}: given twice")
        places[*key, name] = where
        values[name] = _convert(value_node, (*key, name), places, place)
    return values


def _merge_into(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    for name, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(name), dict):
            below[name] = dict(below[name])
            _merge_into(below[name], value)
        else:
            below[name] = value
