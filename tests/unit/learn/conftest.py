"""One small world for all tests of real learning: the shipped base, a short task, a dense method."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def loaded():
    """The shipped base without an adapter slot. Do not attach one to it."""
    from fedsim.learn.model import load_model

    return load_model("embedded", "cpu")


@pytest.fixture(scope="session")
def slotted():
    """Another copy of the base, with a slot on q and v."""
    from fedsim.learn.model import load_model, model_shape
    from fedsim.learn.peft_bridge import AdapterSlot

    model = load_model("embedded", "cpu")
    shape = model_shape(model, ["q_proj", "v_proj"])
    return model, AdapterSlot(model.model, [layer.name for layer in shape.layers]), shape


@pytest.fixture(scope="session")
def task():
    from fedsim.learn.data import EmbeddedTask

    return EmbeddedTask(num_clients=6, seed=1, mean_examples=24, held_out_size=24)
