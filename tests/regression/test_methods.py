"""Figures of one tiny fixed federation per method, pinned; written again only with ``--write-goldens``.

A moved golden needs a news fragment of the kind *numbers*. Tolerances allow for another processor, and for no
more: they are far below what a wrong gate, coverage or allocation would change.
"""

import json
from pathlib import Path

import pytest

from tests.methods_world import DRIFT, federation

GOLDENS = Path(__file__).with_name("goldens") / "methods.json"
PINNED = ("fedhera", "fedhera_paper", "flexlora", "fedhl", "fedhomolora", "hetlora", "raflora")
TOLERANCE = {"loss": 2e-3, "token_accuracy": 5e-3, "gate": 2e-2}
"""Absolute; loss in nats."""
RELATIVE_TOLERANCE = {"update_norm": 2e-2, **dict.fromkeys(DRIFT, 3e-2)}
"""For the norm of a version's update, and for drifts, which the last version has."""


@pytest.fixture(scope="module")
def world():
    import torch

    from fedsim.learn.data import EmbeddedTask
    from fedsim.learn.model import load_model, model_shape
    from fedsim.learn.peft_bridge import AdapterSlot

    torch.set_num_threads(1)
    loaded = load_model("embedded", "cpu")
    shape = model_shape(loaded, ["q_proj", "v_proj"])
    slot = AdapterSlot(loaded.model, [layer.name for layer in shape.layers])
    return loaded, slot, shape, EmbeddedTask(num_clients=6, seed=1, mean_examples=24, held_out_size=24)


def goldens():
    return json.loads(GOLDENS.read_text()) if GOLDENS.is_file() else {}


@pytest.mark.parametrize("name", PINNED)
def test_a_small_fixed_run_gives_the_pinned_figures(name, world, write_goldens):
    figures = federation(name, *world, rounds=3, steps=3, drift=True)[1:]
    if write_goldens:
        GOLDENS.parent.mkdir(exist_ok=True)
        rounded = [{key: round(value, 6) for key, value in each.items()} for each in figures]
        GOLDENS.write_text(json.dumps(goldens() | {name: rounded}, indent=2, sort_keys=True) + "\n")
        return
    pinned = goldens().get(name)
    assert pinned, f"no golden of {name}; write it with --write-goldens"
    assert len(pinned) == len(figures)
    for found, expected in zip(figures, pinned, strict=True):
        assert set(found) == set(expected)
        for key in expected:
            bounds = {"abs": TOLERANCE.get(key), "rel": RELATIVE_TOLERANCE.get(key)}
            assert found[key] == pytest.approx(expected[key], **bounds), key
    assert set(DRIFT) <= set(pinned[-1])


def test_the_pinned_methods_differ_by_more_than_the_tolerance():
    ends = {name: figures[-1]["update_norm"] for name, figures in goldens().items()}
    assert set(ends) == set(PINNED)
    values = sorted(ends.values())
    assert values[-1] / values[0] > 1.0 + 10 * RELATIVE_TOLERANCE["update_norm"]


def moved_beyond_tolerance(figures, pinned):
    return any(
        any(abs(found[key] - expected[key]) > TOLERANCE[key] for key in ("loss", "gate"))
        or abs(found["update_norm"] / expected["update_norm"] - 1.0) > RELATIVE_TOLERANCE["update_norm"]
        for found, expected in zip(figures, pinned, strict=True)
    )


def shut(memory, version, **options):
    """A gate that never opens."""
    return 0.0


def everything_uncovered(basis, parts, version):
    """A coverage identity that takes nothing off the columns that were trained."""
    from fedsim.lora.basis import balanced

    return balanced(basis)


def weakest_first(allocate):
    """An allocator that takes the spectrum upside down."""

    def wrong(spectrum, budgets, prices, fresh_rank, rule, offered):
        del offered  # made from the true spectrum
        upside_down = {name: 1.0 / sigma[::-1] ** 4 for name, sigma in spectrum.items()}
        return allocate(upside_down, budgets, prices, fresh_rank, rule)

    return wrong


@pytest.mark.slow
@pytest.mark.parametrize("where", ["gate", "coverage", "allocator"])
def test_the_goldens_catch_a_planted_error(where, world, monkeypatch):
    from fedsim.method import aggregate, decoupled, fedhera

    if where == "gate":
        monkeypatch.setattr(fedhera, "tail_gate", shut)
    elif where == "coverage":
        monkeypatch.setattr(aggregate, "_uncovered", everything_uncovered)
    else:
        monkeypatch.setattr(decoupled, "allocate", weakest_first(decoupled.allocate))
    figures = federation("fedhera", *world, rounds=3, steps=3)[1:]
    assert moved_beyond_tolerance(figures, goldens()["fedhera"])
