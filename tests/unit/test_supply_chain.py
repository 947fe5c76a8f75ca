"""What fedsim is built from: exact pins that fit the declared ranges, and licences that are known."""

import importlib.util
import tomllib
from importlib.machinery import SourceFileLoader
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
# For GPUs and other people's dashboards; nobody pins what the checks do not install.
UNPINNED = {"bitsandbytes", "tensorboard", "mlflow", "wandb", "lm-eval"}
# Only some builds of torch need these, each in versions of its own.
OF_GPU_BUILDS = ("cuda-", "nvidia-", "triton")


@pytest.fixture(scope="module")
def licences():
    """The script, as a module."""
    loader = SourceFileLoader("licences", str(ROOT / "scripts" / "licences"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("licences", loader))
    loader.exec_module(module)
    return module


def pins():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}


def test_every_pin_is_exact_so_that_an_audit_can_read_it():
    """``pip-audit --no-deps --disable-pip --strict`` wants names, two equals signs and versions."""
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        (specifier,) = Requirement(line).specifier
        assert specifier.operator == "=="
        assert str(Version(specifier.version)) == specifier.version


def test_every_declared_dependency_is_pinned_within_its_range():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [
        *project["dependencies"],
        *(text for texts in project["optional-dependencies"].values() for text in texts),
    ]
    for requirement in map(Requirement, declared):
        name = canonicalize_name(requirement.name)
        if name in UNPINNED:
            continue
        assert name in pins(), f"{name} is not in constraints.txt"
        assert requirement.specifier.contains(pins()[name]), requirement


def test_everything_that_a_pin_needs_is_pinned_too():
    for name in pins():
        for requirement in map(Requirement, distribution(name).requires or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                wanted = canonicalize_name(requirement.name)
                if name == "torch" and wanted.startswith(OF_GPU_BUILDS):
                    continue
                assert wanted in {*pins(), "setuptools", "pip"}, f"{name} needs {wanted}, which is not pinned"


def test_the_page_of_licences_is_current_and_every_licence_is_allowed(licences):
    page, troubles = licences.made()
    assert troubles == []
    assert licences.PAGE.read_text(encoding="utf-8") == page


@pytest.mark.parametrize(
    ("licence", "refused"),
    [
        ("MIT", []),
        ("Apache-2.0 OR GPL-3.0-only", []),
        ("GPL-3.0-only", ["GPL-3.0-only"]),
        ("MIT AND AGPL-3.0-only", ["AGPL-3.0-only"]),
        ("not stated", ["not stated"]),
    ],
)
def test_a_licence_that_nobody_has_looked_at_is_refused(licences, licence, refused):
    assert licences.refused_words(licence) == refused
