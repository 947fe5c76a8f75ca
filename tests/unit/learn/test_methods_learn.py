"""Every method, trained for real on the shipped base, makes the held-out loss fall."""

import pytest

from fedsim.method.catalogue import NAMES
from tests.methods_world import federation


@pytest.mark.parametrize("name", NAMES)
def test_every_method_learns(name, slotted, task):
    loaded, slot, shape = slotted
    figures = federation(name, loaded, slot, shape, task, rounds=2, steps=4)
    assert figures[-1]["loss"] < figures[0]["loss"] - 0.01
    assert all(each["update_norm"] > 1e-3 for each in figures[1:])


@pytest.mark.parametrize(
    "options",
    [
        {"tail": "returned_gated"},
        *(
            pytest.param(each, marks=pytest.mark.slow)
            for each in (
                {"coupled": True},
                {"allocation": "uniform"},
                {"allocation": "random"},
                {"tail": "none"},
                {"tail_warmup": 0},
            )
        ),
    ],
    ids=str,
)
def test_every_ablation_of_fedhera_learns(options, slotted, task):
    loaded, slot, shape = slotted
    given = {"initial_rank": 4, **options}
    figures = federation("fedhera", loaded, slot, shape, task, rounds=2, steps=4, options=given)
    assert figures[-1]["loss"] < figures[0]["loss"] - 0.01
