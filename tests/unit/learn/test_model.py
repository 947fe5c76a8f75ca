"""The frozen base and its shape."""

import json

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from fedsim.errors import ModelError, ScenarioError
from fedsim.learn.model import LoadedModel, check_length, load_model, model_shape
from fedsim.world.catalogue import stands_for


def test_the_embedded_base_is_frozen_float32_and_in_evaluation_mode(loaded):
    parameters = list(loaded.model.parameters())
    assert {parameter.dtype for parameter in parameters} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in parameters)
    assert not loaded.model.training
    assert loaded.tokenizer.pad_token_id == 0


def test_the_shape_follows_the_real_modules(loaded):
    shape = model_shape(loaded, "all-linear")
    assert len(shape.layers) == 4 * 7
    assert sum(layer.d_in + layer.d_out for layer in shape.layers) == 4 * (4 * 256 + 3 * 480)
    assert shape.num_params == 935_040
    assert shape.matmul_params == 4 * (4 * 128 * 128 + 3 * 128 * 352) + 1024 * 128
    assert (shape.num_blocks, shape.hidden_size, shape.intermediate_size) == (4, 128, 352)
    assert (shape.num_heads, shape.vocab_size) == (4, 1024)
    assert not any("lm_head" in layer.name for layer in shape.layers)


def test_modules_that_read_one_tensor_form_one_group(loaded):
    groups: dict[str, list[str]] = {}
    for layer in model_shape(loaded, "all-linear").layers:
        groups.setdefault(layer.input_group, []).append(layer.name.rpartition(".")[2])
    assert sorted(groups.values())[:8] == [["down_proj"]] * 4 + [["gate_proj", "up_proj"]] * 4
    assert sorted(groups.values())[8:] == [["o_proj"]] * 4 + [["q_proj", "k_proj", "v_proj"]] * 4


def test_targets_keep_the_order_of_the_model(loaded):
    shape = model_shape(loaded, ["v_proj", "q_proj"])
    assert [layer.name for layer in shape.layers[:2]] == [
        "model.layers.0.self_attn.q_proj",
        "model.layers.0.self_attn.v_proj",
    ]


def test_the_embedded_base_can_stand_for_a_large_model(loaded):
    mapped = stands_for(model_shape(loaded, "all-linear"), "llama-3.2-1b")
    assert {layer.copies for layer in mapped.layers} == {4}
    assert mapped.num_params == 1_235_814_400


@pytest.mark.parametrize("targets", [["q_proj", "c_attn"], "c_attn", ["lm_head"], []])
def test_targets_that_match_nothing_are_refused(loaded, targets):
    with pytest.raises(ScenarioError, match=r"all-linear or some of q_proj, k_proj"):
        model_shape(loaded, targets)


def test_sequences_longer_than_the_positions_are_refused(loaded):
    check_length(loaded, 256)
    with pytest.raises(ScenarioError, match="256 positions, got a maximum length of 257"):
        check_length(loaded, 257)


def test_a_conv1d_is_a_linear_layer_the_other_way_round():
    model = GPT2LMHeadModel(GPT2Config(vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=2))
    shape = model_shape(LoadedModel("gpt2", model, None, torch.device("cpu")), ["c_attn", "c_fc"])
    assert [(layer.d_in, layer.d_out) for layer in shape.layers] == [(8, 24), (8, 32)]
    assert shape.intermediate_size == 32


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"config\.json"):
        load_model(str(tmp_path), "cpu")
    with pytest.raises(ModelError, match="found nothing there"):
        load_model(str(tmp_path / "absent"), "cpu")


def test_a_hub_id_that_cannot_be_reached_is_one_clear_error(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="fedsim-tests/absent"):
        load_model("fedsim-tests/absent", "cpu")


def test_code_that_lies_beside_a_model_is_never_run(tmp_path):
    """A folder may bring its own architecture: refused without a question, nothing of it is imported."""
    proof = tmp_path / "ran"
    code = f"open({str(proof)!r}, 'w').close()\n"
    (tmp_path / "modeling_evil.py").write_text(code)
    (tmp_path / "configuration_evil.py").write_text(code)
    config = {
        "model_type": "evil",
        "auto_map": {
            "AutoConfig": "configuration_evil.EvilConfig",
            "AutoModelForCausalLM": "modeling_evil.EvilModel",
        },
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="transformers said"):
        load_model(str(tmp_path), "cpu")
    assert not proof.exists()


def test_a_device_that_does_not_exist_is_refused():
    with pytest.raises(ScenarioError, match="warp"):
        load_model("embedded", "warp")
