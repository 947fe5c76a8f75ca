"""The traces that come with the project: small, with sums, sources, licences, made by their commands."""

import hashlib
import re
import shlex
from pathlib import Path

import pytest

from fedsim.experiment.recipe_source import load_recipe
from fedsim.world.calibration import NETWORKS
from fedsim.world.formats.sidecar import read_sidecar
from fedsim.world.importers.catalogue import PUBLISHED
from fedsim.world.make import synth_fleet

TRACES = Path(__file__).parents[3] / "traces"
FOLDERS = sorted(path for path in TRACES.iterdir() if path.is_dir())
SUMS = re.compile(r"^\| `([^`]+)` \| (\d+) \| `([0-9a-f]{64})` \|$", re.MULTILINE)
COMMAND = re.compile(r"^    fedsim traces synth (.*)$", re.MULTILINE)


def command(folder):
    found = COMMAND.search((folder / "README.md").read_text())
    return found and dict(zip(*[iter(shlex.split(found[1]))] * 2, strict=True))


GENERATED = [folder for folder in FOLDERS if command(folder)]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_file_has_its_sum_in_the_readme(folder):
    told = {
        name: (int(size), sha256) for name, size, sha256 in SUMS.findall((folder / "README.md").read_text())
    }
    files = [path for path in folder.iterdir() if path.name != "README.md" and path.suffix != ".yaml"]
    assert told == {
        path.name: (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files
    }


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_folder_holds_tables_or_at_least_a_recipe(folder):
    assert list(folder.glob("*.csv")) or list(folder.glob("*.yaml"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_table_states_its_source_and_licence(folder):
    for path in folder.glob("*.csv"):
        sidecar = read_sidecar(path)
        assert sidecar.licence == "Apache-2.0"
        assert sidecar.source
        assert sidecar.kind


@pytest.mark.parametrize("folder", GENERATED, ids=lambda folder: folder.name)
def test_the_command_of_the_readme_makes_the_same_bytes(folder):
    words = command(folder)
    own = folder / words["--recipe"]
    recipe = load_recipe(str(own) if own.exists() else words["--recipe"])
    made = synth_fleet(recipe, int(words["--devices"]), int(words["--days"]), int(words["--seed"]))
    for name, text in made.items():
        assert (folder / name).read_text() == text, name


def test_there_is_a_set_for_every_network_and_they_are_small():
    folders = {folder.name for folder in FOLDERS}
    assert {f"network_{name.replace('-', '_')}" for name in NETWORKS} <= folders
    assert {"phones", "gateways", "everyday", "skewed_edge"} <= folders
    assert sum(path.stat().st_size for path in TRACES.rglob("*") if path.is_file()) < 3_200_000


def test_the_overview_names_every_folder_and_every_published_trace():
    text = (TRACES / "README.md").read_text()
    for folder in FOLDERS:
        assert f"`{folder.name}`" in text
    for name in PUBLISHED:
        assert f"fedsim traces import {name} " in text
