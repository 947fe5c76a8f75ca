"""The example of docs/add-a-method.md, run as it stands, from outside the package."""

import re
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch

from fedsim.errors import ScenarioError
from fedsim.lora.factors import dense
from fedsim.method.bundle import Method
from fedsim.method.catalogue import build_method, method_names
from fedsim.method.describe import describe
from tests.unit.method.tiny import SHAPES, answer, combine, pair

GUIDE = Path(__file__).parents[3] / "docs" / "add-a-method.md"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package as pip would install it: a module and the metadata of its entry point."""
    text = GUIDE.read_text(encoding="utf-8")
    code = re.search(r"```py\n(.*?)```", text, re.DOTALL).group(1)
    entry = re.search(r"```toml\n(.*?)```", text, re.DOTALL).group(1)
    name, target = re.search(r'^(\w+) = "([\w.]+:\w+)"', entry, re.MULTILINE).groups()
    module = tmp_path.joinpath(*target.partition(":")[0].split(".")).with_suffix(".py")
    module.parent.mkdir(parents=True)
    module.parent.joinpath("__init__.py").touch()
    module.write_text(code)
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[fedsim.methods]\n{name} = {target}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    for loaded in [each for each in sys.modules if each.split(".")[0] == target.split(".")[0]]:
        del sys.modules[loaded]


def test_the_example_works_from_outside_the_package(installed):
    assert installed in {entry.name for entry in entry_points(group="fedsim.methods")}
    assert installed in method_names()
    assert describe(installed).summary.startswith("EqualLoRA: whole adapters are averaged")
    method = build_method(installed, {"rank_cap": 4})
    assert isinstance(method, Method)
    state = method.init(SHAPES, 0, None)
    parts = [pair([[4.0], [0.0]], [[1.0, 0.0, 0.0]]), pair([[0.0], [2.0]], [[0.0, 1.0, 0.0]])]
    updates = [answer(method, state, number, part) for number, part in enumerate(parts)]
    found = dense(method.export(combine(method, state, updates, [0.9, 0.1]))["q"])
    assert torch.allclose(found, torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), atol=1e-5)
    with pytest.raises(ScenarioError, match="method equal_lora: rank: unknown option"):
        build_method(installed, {"rank": 4})


def test_the_guide_names_only_what_exists():
    from fedsim.method import aggregate, coupled, decoupled, hetlora, pairs, spectral, tail
    from fedsim.world import cost

    for module in (aggregate, hetlora, pairs, spectral, tail, cost):
        short = module.__name__.rpartition(".")[2]
        for name in re.findall(rf"`{short}\.(\w+)", GUIDE.read_text(encoding="utf-8")):
            assert hasattr(module, name), f"{short}.{name}"
    assert hasattr(coupled, "CommonRank")
    assert hasattr(decoupled, "Decoupled")
