"""The slot in the base model, and adapters as PEFT's files."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from fedsim.errors import ModelError
from fedsim.learn.model import load_model
from fedsim.learn.peft_bridge import AdapterSlot, export_adapter, import_adapter
from fedsim.lora.factors import dense
from tests.unit.learn.toy import random_adapter, same

IDS = torch.arange(2, 42).reshape(2, 20)


def logits(model):
    with torch.inference_mode():
        return model(input_ids=IDS).logits


def test_the_forward_pass_is_base_plus_adapter(slotted):
    _, slot, shape = slotted
    adapter = random_adapter(shape, [4, 0, 3, 1])
    plain = load_model("embedded", "cpu").model
    for name in adapter:
        weight = plain.get_submodule(name).weight
        weight += dense(adapter[name])
    with slot.loaded(adapter):
        torch.testing.assert_close(logits(slot.model), logits(plain), atol=2e-5, rtol=1e-5)
        assert not any(weight.requires_grad for weight in slot.model.parameters())


def test_nothing_of_an_adapter_stays_behind(slotted):
    _, slot, shape = slotted
    before = {name: weight.clone() for name, weight in slot.model.state_dict().items()}
    plain = logits(slot.model)
    adapter = random_adapter(shape, [5])
    with slot.loaded(adapter):
        loaded = logits(slot.model)
        held = [buffer for name, buffer in slot.model.named_buffers() if ".lora_" in name]
        assert len(held) == 2 * len(adapter)
        for buffer in held:
            buffer.add_(1.0)
    assert not torch.equal(loaded, plain)
    assert torch.equal(logits(slot.model), plain)
    after = slot.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    with slot.loaded(adapter):
        assert torch.equal(logits(slot.model), loaded)  # the adapter itself was not written
    with slot.loaded({}):
        assert torch.equal(logits(slot.model), plain)


def test_the_slot_is_empty_after_an_error(slotted):
    _, slot, shape = slotted
    plain = logits(slot.model)
    with pytest.raises(RuntimeError, match="boom"), slot.loaded(random_adapter(shape, [2])):
        raise RuntimeError("boom")
    assert torch.equal(logits(slot.model), plain)


def test_layers_must_exist_and_a_base_takes_one_slot(slotted):
    _, slot, shape = slotted
    with pytest.raises(ModelError, match="without adapters"):
        AdapterSlot(slot.model, [shape.layers[0].name])
    stranger = {"model.layers.9.q_proj": random_adapter(shape, [1])[shape.layers[0].name]}
    with pytest.raises(ModelError, match=r"layers\.9"), slot.loaded(stranger):
        pass


@pytest.mark.parametrize("ranks", [[4, 0, 7, 1], [3], [0, 0, 0, 2]])
def test_peft_loads_the_export_and_gives_our_logits(slotted, tmp_path, ranks):
    _, slot, shape = slotted
    adapter = random_adapter(shape, ranks)
    export_adapter(adapter, tmp_path / "adapter", "embedded")
    theirs = PeftModel.from_pretrained(load_model("embedded", "cpu").model, str(tmp_path / "adapter")).eval()
    plain = logits(slot.model)
    with slot.loaded(adapter):
        ours = logits(slot.model)
    torch.testing.assert_close(logits(theirs), ours, atol=1e-5, rtol=1e-5)
    assert (ours - plain).abs().max() > 1e-2
    assert same(import_adapter(tmp_path / "adapter"), {name: f for name, f in adapter.items() if f.rank})


def test_a_zero_adapter_is_exported_as_zeros(slotted, tmp_path):
    _, slot, shape = slotted
    export_adapter(random_adapter(shape, [0]), tmp_path / "adapter", "embedded")
    theirs = PeftModel.from_pretrained(load_model("embedded", "cpu").model, str(tmp_path / "adapter")).eval()
    torch.testing.assert_close(logits(theirs), logits(slot.model), atol=1e-6, rtol=1e-6)
    with pytest.raises(ModelError, match="at least one layer"):
        export_adapter({}, tmp_path / "none", "embedded")


def test_an_export_replaces_the_old_one_and_leaves_nothing_else(slotted, tmp_path):
    shape = slotted[2]
    for seed in (0, 1):
        export_adapter(random_adapter(shape, [2], seed), tmp_path / "adapter", "embedded")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert same(import_adapter(tmp_path / "adapter"), random_adapter(shape, [2], 1))


@pytest.mark.parametrize("use_rslora", [False, True])
def test_an_adapter_made_by_peft_is_read_with_its_scaling(slotted, tmp_path, use_rslora):
    _, slot, _ = slotted
    config = LoraConfig(
        r=4,
        lora_alpha=12,
        target_modules=["q_proj", "v_proj"],
        rank_pattern={"v_proj": 2},
        alpha_pattern={r"1\.self_attn\.q_proj": 5},
        use_rslora=use_rslora,
        init_lora_weights=False,
    )
    torch.manual_seed(0)
    theirs = get_peft_model(load_model("embedded", "cpu").model, config).eval()
    theirs.save_pretrained(tmp_path)
    with slot.loaded(import_adapter(tmp_path)):
        torch.testing.assert_close(logits(slot.model), logits(theirs), atol=1e-5, rtol=1e-5)


def test_broken_adapters_are_refused(slotted, tmp_path):
    with pytest.raises(ModelError, match=r"adapter_config\.json"):
        import_adapter(tmp_path)
    folder = tmp_path / "adapter"
    export_adapter(random_adapter(slotted[2], [2]), folder, "embedded")
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    tensors = load_file(weights)
    removed = next(iter(tensors))
    save_file({key: tensors[key] for key in tensors if key != removed}, weights)
    with pytest.raises(ModelError, match="pairs of lora_A and lora_B"):
        import_adapter(folder)
    weights.write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="safetensors"):
        import_adapter(folder)
    weights.unlink()
    with pytest.raises(ModelError, match="adapter_model"):
        import_adapter(folder)
    config.write_text(json.dumps({**json.loads(config.read_text()), "use_dora": True}))
    with pytest.raises(ModelError, match="use_dora"):
        import_adapter(folder)
    config.write_text(json.dumps({"peft_type": "IA3"}))
    with pytest.raises(ModelError, match="LORA"):
        import_adapter(folder)
    config.write_text("{")
    with pytest.raises(ModelError, match="JSON"):
        import_adapter(folder)
