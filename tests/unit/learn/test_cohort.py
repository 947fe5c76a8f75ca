"""Several clients in one pass: what keeps them apart, and which models it works on."""

import pytest
import torch

from fedsim.errors import ModelError
from fedsim.learn.cohort import Member, train_cohort
from fedsim.learn.peft_bridge import AdapterSlot
from fedsim.learn.stacked import StackedAdam, StackedLayer, stacked
from fedsim.learn.train import LocalRun, TrainingSettings
from fedsim.lora.factors import Factors
from fedsim.method.bundle import Payload
from tests.peft_training import train_with_peft
from tests.unit.learn import tiny

SETTINGS = TrainingSettings(batch_size=2)


@pytest.fixture(scope="module")
def slot():
    return tiny.tiny_slot()


def member(slot, seed, *, ranks=(2, 1, 3), rate=1e-2, steps=2):
    payload = Payload(tiny.adapter(slot, ranks, seed), tiny.adapter(slot, (1, 2), seed + 50))
    return Member(payload, tiny.shard([5, 9, 3], seed), LocalRun(steps, rate, 0.5, seed))


def together(slot, members):
    return train_cohort(slot, members, settings=SETTINGS, pad_id=0)


def alone(slot, one):
    return train_with_peft(slot, one.payload, one.shard, run=one.run, settings=SETTINGS, pad_id=0)


def assert_close(found, expected, near=1e-5):
    assert found.loss == pytest.approx(expected.loss, abs=near)
    for name, change in expected.change.items():
        assert torch.allclose(found.change[name].lora_a, change.lora_a, atol=near)
        assert torch.allclose(found.change[name].lora_b, change.lora_b, atol=near)


def test_the_same_cohort_gives_the_same_bits(slot):
    members = [member(slot, seed, steps=1 + seed) for seed in range(3)]
    for first, again in zip(together(slot, members), together(slot, members), strict=True):
        assert first.loss == again.loss
        assert all(torch.equal(pair.lora_b, again.change[name].lora_b) for name, pair in first.change.items())


def test_learning_rate_zero_changes_nothing_by_one_bit(slot):
    found = together(slot, [member(slot, 0, rate=0.0), member(slot, 1)])
    assert all(not pair.lora_a.any() and not pair.lora_b.any() for pair in found[0].change.values())
    assert any(pair.lora_b.any() for pair in found[1].change.values())


def test_a_client_that_fails_leaves_the_others_as_they_were(slot):
    good = [member(slot, seed, steps=3) for seed in (0, 1)]
    name = tiny.LAYERS[0]
    pair = good[0].payload.prefix[name]
    broken = {**good[0].payload.prefix, name: Factors(lora_a=pair.lora_a * torch.nan, lora_b=pair.lora_b)}
    bad = [
        Member(Payload(broken, {}), good[0].shard, LocalRun(3, 1e-2, 0.5, 2)),
        member(slot, 3, rate=float("inf"), steps=3),
        Member(good[0].payload, [], good[0].run),
        Member(Payload({}, good[0].payload.tail), good[0].shard, good[0].run),
    ]
    first, nan, wild, empty, untrained, last = together(slot, [good[0], *bad, good[1]])
    assert nan == "local training: non-finite loss at step 1 of 3"
    assert "non-finite" in wild
    assert "at least one example" in empty
    assert "at least one column" in untrained
    assert_close(first, alone(slot, good[0]))
    assert_close(last, alone(slot, good[1]))


def test_a_cohort_in_which_everybody_fails_ends(slot):
    good = member(slot, 0)
    broken = {
        name: Factors(lora_a=f.lora_a * torch.nan, lora_b=f.lora_b) for name, f in good.payload.prefix.items()
    }
    bad = Member(Payload(broken, {}), good.shard, LocalRun(3, 1e-2, 0.5, 2))
    assert together(slot, [bad, bad]) == ["local training: non-finite loss at step 1 of 3"] * 2


def test_an_example_without_a_target_is_no_loss(slot):
    bare = [tiny.Encoded((1, 2), 2)]
    good = member(slot, 0)
    outcomes = together(slot, [Member(good.payload, bare, good.run), good])
    assert outcomes[0] == "local training: non-finite loss at step 1 of 2"
    assert_close(outcomes[1], alone(slot, good))


def test_padded_columns_have_no_gradient_and_never_move():
    parts = [tiny.factors(6, 5, rank, rank) for rank in (1, 3)]
    adam = StackedAdam(list(vars_of(stacked(parts, torch.zeros(0)))), [0.1, 0.1], 1.0)
    base = torch.nn.Linear(6, 5).requires_grad_(requires_grad=False)
    for _ in range(3):
        leaves = adam.parts()
        layer = StackedLayer(stacked(parts, leaves[0]), None).with_prefix(*leaves)
        loss = layer.forward(base, torch.randn(4, 7, 6)).square().sum()
        loss.backward()
        lora_a, lora_b = adam.gradients()
        assert lora_a.any()
        assert not lora_a[0, 1:].any()
        assert not lora_b[0, :, 1:].any()
        adam.step()
    lora_a, lora_b = adam.parts()
    assert not lora_a[0, 1:].any()
    assert not lora_b[0, :, 1:].any()
    assert (lora_a[1] != parts[1].lora_a).all()


def vars_of(pair):
    return pair.lora_a, pair.lora_b


def test_each_client_has_its_own_clipping_rate_and_state():
    parts = [torch.randn(3, 4, 2), torch.randn(3, 5)]
    rates = [1e-2, 1e-3, 1.0]
    adam = StackedAdam(parts, rates, clip_norm=1.0)
    theirs = [[part[row].clone().requires_grad_() for part in parts] for row in range(3)]
    optimizers = [
        torch.optim.AdamW(own, lr=rate, weight_decay=0.0) for own, rate in zip(theirs, rates, strict=True)
    ]
    active = [0, 1, 2]
    for step in range(4):
        gradients = [
            torch.randn_like(part) * 10.0 ** torch.arange(-1, 2)[(...,) + (None,) * (part.ndim - 1)]
            for part in parts
        ]
        for place, gradient in zip(adam.gradients(), gradients, strict=True):
            place.copy_(gradient[active])
        adam.step()
        for row in active:
            for own, gradient in zip(theirs[row], gradients, strict=True):
                own.grad = gradient[row].clone()
            torch.nn.utils.clip_grad_norm_(theirs[row], 1.0)
            optimizers[row].step()
        for place, row in enumerate(active):
            for mine, own in zip(adam.parts(), theirs[row], strict=True):
                assert torch.allclose(mine[place], own, rtol=1e-5, atol=1e-7)
        if step == 1:
            adam.keep(torch.tensor([0, 2]))
            active = [0, 2]


def gpt2_slot():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=tiny.VOCABULARY, n_positions=16)
    model = GPT2LMHeadModel(config).requires_grad_(requires_grad=False).eval()
    return AdapterSlot(model, ["transformer.h.0.attn.c_attn", "transformer.h.0.mlp.c_proj"])


def test_a_base_that_is_no_plain_linear_layer_serves_too():
    slot = gpt2_slot()
    shapes = {"transformer.h.0.attn.c_attn": (16, 48), "transformer.h.0.mlp.c_proj": (64, 16)}
    members = []
    for seed, rank in ((0, 2), (1, 3)):
        prefix = {name: tiny.factors(*shape, rank, seed) for name, shape in shapes.items()}
        members.append(Member(Payload(prefix, {}), tiny.shard([5, 9], seed), LocalRun(2, 1e-2, 1.0, seed)))
    for one, found in zip(members, together(slot, members), strict=True):
        assert_close(found, alone(slot, one), near=1e-4)


def test_a_base_in_half_precision_serves_too():
    slot = tiny.tiny_slot(torch.bfloat16)
    members = [member(slot, seed, rate=1e-3) for seed in (0, 1)]
    for one, found in zip(members, together(slot, members), strict=True):
        assert_close(found, alone(slot, one), near=2e-2)


def test_gradient_checkpointing_changes_nothing(slot):
    from fedsim.learn.model import ModelOptions, load_model, model_shape

    found = []
    for checkpointing in (False, True):
        loaded = load_model("embedded", "cpu", ModelOptions(gradient_checkpointing=checkpointing))
        layers = model_shape(loaded, ["q_proj"]).layers
        prefix = {layer.name: tiny.factors(layer.d_in, layer.d_out, 2, 1) for layer in layers}
        one = Member(Payload(prefix, {}), tiny.shard([6, 4], 0), LocalRun(1, 1e-2, 1.0, 0))
        found.append(together(AdapterSlot(loaded.model, list(prefix)), [one])[0])
    assert_close(found[1], found[0], near=1e-6)


def test_the_slot_is_as_it_was_afterwards(slot):
    ids = torch.tensor([[1, 2, 3]])
    before = slot.model(input_ids=ids).logits
    together(slot, [member(slot, 0)])
    assert torch.equal(slot.model(input_ids=ids).logits, before)


def test_a_model_without_an_output_layer_of_its_own_serves_too(slot, monkeypatch):
    one = member(slot, 0)
    expected = alone(slot, one)
    monkeypatch.setattr(slot.model, "get_output_embeddings", lambda: None)
    assert_close(together(slot, [one])[0], expected)


def test_a_model_with_other_logits_is_refused(slot, monkeypatch):
    twice = type("Twice", (torch.nn.Linear,), {"forward": lambda self, x: torch.cat([x, x], dim=1)})
    head = twice(1, 1)
    monkeypatch.setattr(slot.model, "get_output_embeddings", lambda: head)
    monkeypatch.setattr(slot.model, "lm_head", head)
    with pytest.raises(ModelError, match=r"expected logits of \d+ positions, got \d+"):
        together(slot, [member(slot, 0)])
