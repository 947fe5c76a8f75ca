"""The script that makes the shipped base, in a very small edition, and what it shipped."""

import json
from dataclasses import asdict
from importlib.resources import files

import torch
from safetensors.torch import load_file

from fedsim.learn.embedded.pretrain import Recipe, build_model, pretrain, save, train_tokenizer
from fedsim.learn.model import load_model

SMALL = Recipe(
    steps=3,
    batch_size=2,
    vocab_size=300,
    tokenizer_examples=50,
    hidden_size=16,
    intermediate_size=32,
    num_blocks=1,
)


def test_a_recipe_gives_the_same_weights_twice_and_they_load(tmp_path):
    weights = []
    for name in ("first", "second"):
        tokenizer, model = train_tokenizer(SMALL), build_model(SMALL)
        loss = pretrain(SMALL, tokenizer, model)
        save(tmp_path / name, SMALL, tokenizer, model, loss)
        weights.append(load_file(tmp_path / name / "model.safetensors"))
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert {tensor.dtype for tensor in weights[0].values()} == {torch.float16}
    loaded = load_model(str(tmp_path / "first"), "cpu")
    assert loaded.tokenizer.eos_token_id == 1
    assert next(loaded.model.parameters()).dtype == torch.float32


def test_the_shipped_base_says_how_it_was_made():
    folder = files("fedsim.learn.embedded") / "weights"
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["recipe"] == asdict(Recipe())
    assert provenance["parameters"] == 935_040
    assert 0.4 < provenance["final_loss"] < 0.6
