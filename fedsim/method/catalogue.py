"""Which methods are there? Names, and where their builders live; nothing is loaded until it is asked for.

A package adds a method by an entry point in the group ``fedsim.methods`` that names a function
``build(options) -> Method``.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import entry_points

from fedsim.errors import ScenarioError
from fedsim.method.bundle import Method
from fedsim.method.options import nearest

ENTRY_POINTS = "fedsim.methods"

NAMES = (
    "fed_plora",
    "fedex_lora",
    "fedhera",
    "fedhera_paper",
    "fedhl",
    "fedhomolora",
    "ffa_lora",
    "flexlora",
    "flora",
    "fslora",
    "hetlora",
    "raflora",
)
BUILDERS: Mapping[str, str] = {name: f"fedsim.method.{name}:build" for name in NAMES}
"""Method name -> ``module:function``."""


def method_names() -> tuple[str, ...]:
    """Return every method that can be built, those of other packages included."""
    return tuple(sorted({*BUILDERS, *(entry.name for entry in entry_points(group=ENTRY_POINTS))}))


def build_method(name: str, options: Mapping[str, object]) -> Method:
    """Build a method by its name.

    Args:
        name: One of `method_names`; fedsim's own win over an entry point of the same name.
        options: The method's options.

    Returns:
        The assembled bundle.

    Raises:
        ScenarioError: If there is no such method, or it refuses an option.
    """
    return _builder(name)(options)


def _builder(name: str) -> Callable[[Mapping[str, object]], Method]:
    """Load the builder of a method."""
    if name in BUILDERS:
        module, _, function = BUILDERS[name].partition(":")
        found: Callable[[Mapping[str, object]], Method] = getattr(import_module(module), function)
        return found
    for entry in entry_points(group=ENTRY_POINTS, name=name):
        loaded: Callable[[Mapping[str, object]], Method] = entry.load()
        return loaded
    raise ScenarioError(f"method: unknown name {name!r}{nearest(name, list(method_names()))}")
