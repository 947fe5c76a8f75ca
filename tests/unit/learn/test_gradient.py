"""The prefix split is exact: its gradient is that of PEFT's own full-rank layer, masked to the prefix."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model

from fedsim.learn.encode import collate, encode
from fedsim.learn.model import load_model, model_shape
from fedsim.learn.peft_bridge import AdapterSlot
from fedsim.lora.factors import Factors, stack
from tests.peft_training import in_our_pass

R_TRAIN, R_TOTAL, GATE = 3, 8, 0.4
TARGETS = ["q_proj", "v_proj", "down_proj"]


def loss_of(model, batch):
    return model(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels, use_cache=False
    ).loss


def random_factors(layer, rank, seed):
    generator = torch.Generator().manual_seed(seed)
    lora_a = torch.randn(rank, layer.d_in, generator=generator, dtype=torch.float64) / layer.d_in**0.5
    return Factors(
        lora_a=lora_a, lora_b=torch.randn(layer.d_out, rank, generator=generator, dtype=torch.float64)
    )


@pytest.fixture(scope="module")
def world(task):
    """Base in float64, a batch, and factors of every layer: prefix and tail."""
    loaded = load_model("embedded", "cpu")
    loaded.model.double()
    shape = model_shape(loaded, TARGETS)
    encoded = encode(loaded.tokenizer, task.shard(0)[:4], 64)
    batch = collate(encoded, loaded.tokenizer.pad_token_id)
    prefix = {layer.name: random_factors(layer, R_TRAIN, seed) for seed, layer in enumerate(shape.layers)}
    tail = {
        layer.name: random_factors(layer, R_TOTAL - R_TRAIN, 1000 + seed)
        for seed, layer in enumerate(shape.layers)
    }
    return loaded.model, batch, prefix, tail


@pytest.fixture(scope="module")
def full_rank(world):
    """Loss and gradients of PEFT's own layer, with all columns as parameters."""
    base, batch, prefix, tail = world
    config = LoraConfig(r=R_TOTAL, lora_alpha=R_TOTAL, target_modules=TARGETS, lora_dropout=0.0)
    model = get_peft_model(copy.deepcopy(base), config).double()
    for name, part in prefix.items():
        gated = Factors(lora_a=tail[name].lora_a, lora_b=GATE * tail[name].lora_b)
        whole = stack([part, gated])
        layer = model.base_model.model.get_submodule(name)
        layer.lora_A["default"].weight.data = whole.lora_a.clone()
        layer.lora_B["default"].weight.data = whole.lora_b.clone()
    loss = loss_of(model, batch)
    loss.backward()
    layers = {name: model.base_model.model.get_submodule(name) for name in prefix}
    return float(loss.detach()), {
        name: (layer.lora_A["default"].weight.grad, layer.lora_B["default"].weight.grad)
        for name, layer in layers.items()
    }


def test_the_prefix_gets_the_masked_gradient_of_the_whole_and_nothing_else_gets_any(world, full_rank):
    base, batch, prefix, tail = world
    model = copy.deepcopy(base)
    slot = AdapterSlot(model, list(prefix))
    expected_loss, expected = full_rank
    with in_our_pass(slot, prefix, tail, GATE) as (layers, adam, _):
        loss = loss_of(model, batch)
        loss.backward()
    assert float(loss.detach()) == pytest.approx(expected_loss, rel=1e-12)
    gradients = iter(adam.gradients())
    for name in layers:
        grad_a, grad_b = expected[name]
        (own_a,), (own_b,) = next(gradients), next(gradients)
        torch.testing.assert_close(own_a, grad_a[:R_TRAIN], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(own_b, grad_b[:, :R_TRAIN], rtol=1e-9, atol=1e-12)
        assert float(own_a.norm()) > 0
        assert float(own_b.norm()) > 0
    frozen = [part for layer in layers.values() for part in (layer.frozen.lora_a, layer.frozen.lora_b)]
    others = [*model.parameters(), *model.buffers(), *frozen]
    assert len(frozen) == 2 * len(prefix)
    assert all(tensor.grad is None and not tensor.requires_grad for tensor in others)


def test_the_masked_rest_of_the_full_gradient_is_not_nothing(full_rank):
    """Or the test above would hold of a layer that has no tail at all."""
    assert all(float(grad_a[R_TRAIN:].norm()) > 0 for grad_a, _ in full_rank[1].values())
