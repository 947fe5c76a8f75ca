"""Options of the test run. Nothing of fedsim may be imported here: the shape checker must come first."""

import os

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# The same examples at every run, so that a check means the same on every machine; look for new ones with
# --hypothesis-profile=explore.
settings.register_profile("explore", deadline=None)
settings.register_profile("same", deadline=None, derandomize=True)
settings.load_profile("same")


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
