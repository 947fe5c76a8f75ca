import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from fedsim.errors import ScenarioError
from fedsim.method import catalogue
from fedsim.method.bundle import Method
from fedsim.method.catalogue import build_method, method_names


def test_every_listed_method_builds_with_its_defaults():
    for name in method_names():
        method = build_method(name, {})
        assert isinstance(method, Method)
        assert method.name == name


def test_an_unknown_name_gets_the_nearest_one():
    with pytest.raises(ScenarioError, match=r"'fedhra'.*did you mean 'fedhera'"):
        build_method("fedhra", {})
    with pytest.raises(ScenarioError, match=r"known are fed_plora, .*fedhera, "):
        build_method("zzz", {})


def test_another_package_can_add_a_method(monkeypatch):
    entry = EntryPoint("theirs", "fedsim.method.fedhera:build", catalogue.ENTRY_POINTS)

    def select(group, **name):
        return EntryPoints([entry]).select(group=group, **name)

    monkeypatch.setattr(catalogue, "entry_points", select)
    assert "theirs" in method_names()
    assert build_method("theirs", {}).name == "fedhera"


def test_the_catalogue_and_the_bundle_load_no_tensor_library():
    code = "import sys, fedsim.method.catalogue, fedsim.method.tail; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
