"""What the repository ships as scenarios and examples can be loaded."""

import re
from pathlib import Path

import pytest

from fedsim.experiment.scenario import load_scenario

ROOT = Path(__file__).parents[3]
SHIPPED = sorted((ROOT / "scenarios").glob("*.yaml"))
README_YAML = re.findall(r"```yaml\n# (scenarios/\S+)\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_shipped_scenario_loads_and_says_what_it_is(path):
    scenario = load_scenario(path)
    assert scenario.description


def test_there_is_a_default_scenario():
    assert "skewed_edge.yaml" in {path.name for path in SHIPPED}


@pytest.mark.parametrize(("name", "text"), README_YAML, ids=lambda value: value.split("\n")[0])
def test_an_example_of_the_readme_loads(name, text, tmp_path):
    (tmp_path / "skewed_edge.yaml").write_text((ROOT / "scenarios/skewed_edge.yaml").read_text())
    path = tmp_path / Path(name).name
    path.write_text(text)
    assert (
        load_scenario(path).canonical_json() != load_scenario(tmp_path / "skewed_edge.yaml").canonical_json()
    )


def test_the_readme_has_an_example():
    assert README_YAML
