"""Are the options of a method those that it knows? Plain checks, shared by every builder."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

from fedsim.errors import ScenarioError

Kind = Literal["integer", "number", "yes or no", "choice"]


@dataclass(frozen=True, slots=True)
class Option:
    """What one option accepts.

    Args:
        kind: Which values.
        low: Smallest number.
        high: Largest number.
        choices: Accepted words, for a choice.
    """

    kind: Kind
    low: float = 0.0
    high: float = float("inf")
    choices: tuple[str, ...] = ()

    def accepts(self, value: object) -> bool:
        """Whether a value is of this kind and in range."""
        if self.kind == "yes or no":
            return isinstance(value, bool)
        if self.kind == "choice":
            return value in self.choices
        types = int if self.kind == "integer" else int | float
        return isinstance(value, types) and not isinstance(value, bool) and self.low <= value <= self.high

    def __str__(self) -> str:
        if self.kind == "choice":
            return f"one of {', '.join(self.choices)}"
        if self.kind == "yes or no":
            return "true or false"
        bounds = (
            f"at least {self.low:g}" if self.high == float("inf") else f"from {self.low:g} to {self.high:g}"
        )
        return f"{'an' if self.kind == 'integer' else 'a'} {self.kind} {bounds}"


class OptionError(ScenarioError):
    """One option of a method is wrong.

    Args:
        method: Name of the method.
        option: Name of the option.
        problem: What was expected and found.
    """

    def __init__(self, method: str, option: str, problem: str) -> None:
        super().__init__(f"method {method}: {option}: {problem}")
        self.option = option
        self.problem = problem


def check_options(method: str, given: Mapping[str, object], known: Mapping[str, Option]) -> None:
    """Refuse options that the method does not know, and values that it cannot take.

    Raises:
        OptionError: Naming the option, what was expected and found, and the nearest known name.
    """
    for name, value in given.items():
        if name not in known:
            raise OptionError(method, name, f"unknown option{nearest(name, list(known))}")
        if not known[name].accepts(value):
            raise OptionError(method, name, f"expected {known[name]}, got {value!r}")


def nearest(name: str, known: list[str]) -> str:
    """Return the end of a message that names the nearest known word, or all of them."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(sorted(known))}"


def whole_number(given: Mapping[str, object], name: str, default: int) -> int:
    """Return a checked option, or its default."""
    return cast("int", given.get(name, default))


def number(given: Mapping[str, object], name: str, default: float) -> float:
    """Return a checked option, or its default."""
    return float(cast("float", given.get(name, default)))


def word(given: Mapping[str, object], name: str, default: str) -> str:
    """Return a checked option, or its default."""
    return cast("str", given.get(name, default))


def given_rank(given: Mapping[str, object]) -> int | None:
    """Return the checked option ``rank``, or None where the fleet decides."""
    return cast("int | None", given.get("rank"))
