"""Options of the test run. Nothing of fedsim may be imported here: the shape checker must come first."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def pytest_addoption(parser):
    parser.addoption(
        "--write-goldens",
        action="store_true",
        help="write what the regression tests measured as the new goldens; from a clean tree, on purpose",
    )


@pytest.fixture
def write_goldens(request):
    """Whether goldens are to be written instead of compared."""
    return request.config.getoption("--write-goldens")
