import inspect

import pytest

from fedsim import errors
from fedsim.errors import FedsimError, InputError

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]


def drawn_tree():
    """Read class -> parent out of the tree in the module's docstring."""
    parents, path = {}, []
    for line in errors.__doc__.splitlines():
        name = line.strip(" │├└─").split(" ")[0]
        if not name.endswith("Error") or "." in line.split("Error")[0]:
            continue
        depth = (len(line) - len(line.lstrip(" │├└─")) - 4) // 4
        path[depth:] = [name]
        parents[name] = path[depth - 1] if depth else "Exception"
    return parents


def test_the_drawn_tree_is_the_tree():
    assert drawn_tree() == {kind.__name__: kind.__bases__[0].__name__ for kind in CLASSES}


def test_only_what_a_user_hands_in_is_an_input_error():
    inputs = {kind.__name__ for kind in CLASSES if issubclass(kind, InputError)}
    assert inputs == {"InputError", "ScenarioError", "TraceError", "ModelError", "MissingExtraError"}


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_has_one_root_and_keeps_its_message(kind):
    assert issubclass(kind, FedsimError)
    assert str(kind("scenarios/x.yaml:3: seed: expected a whole number")).startswith("scenarios/x.yaml:3")
