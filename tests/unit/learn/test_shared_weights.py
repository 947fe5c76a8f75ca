"""One base for all processes: the same bits, from memory that nobody copies."""

import errno
import multiprocessing
import tempfile
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from fedsim.errors import ModelError, StorageError
from fedsim.learn.model import load_model, share_weights
from fedsim.learn.model_files import resolve_source
from fedsim.learn.shared_weights import SharedWeights


def private_bytes():
    """Memory of this process that no other can share."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


def tell(connection, weights):
    """Make the model in another process; say what it holds, and what that took."""
    before = private_bytes()
    model = weights.model()
    total = sum(float(weight.double().sum()) for weight in model.parameters())
    connection.send((total, private_bytes() - before, sum(w.nbytes for w in model.parameters())))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """A model of another build: tied weights, and linear layers that are none of PyTorch's."""
    folder = tmp_path_factory.mktemp("gpt2")
    tokenizer = AutoTokenizer.from_pretrained(resolve_source("embedded"))
    torch.manual_seed(1)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=256, n_layer=6, n_head=4, n_positions=64, bos_token_id=0
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("source", ["embedded", "gpt2"])
def test_a_model_made_again_is_the_same_and_answers_alike(source, gpt2):
    source = gpt2 if source == "gpt2" else source
    ids = torch.arange(24).view(2, 12)
    before = load_model(source, "cpu").model(input_ids=ids).logits
    loaded = load_model(source, "cpu")
    weights = share_weights(loaded)
    assert torch.equal(loaded.model(input_ids=ids).logits, before)
    again = load_model(source, "cpu", weights=weights).model
    assert torch.equal(again(input_ids=ids).logits, before)
    assert not any(weight.requires_grad for weight in again.parameters())
    for name, tensor in again.named_parameters():
        assert tensor.data_ptr() % 64 == 0, name
    assert again.get_output_embeddings().weight is again.get_input_embeddings().weight


@pytest.mark.slow
def test_another_process_holds_no_copy(gpt2):
    loaded = load_model(gpt2, "cpu")
    weights = share_weights(loaded)
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    process = context.Process(target=tell, args=(theirs, weights))
    process.start()
    total, grown, held = ours.recv()
    process.join()
    assert total == sum(float(weight.double().sum()) for weight in loaded.model.parameters())
    assert held > 10e6
    assert grown < held / 3


def test_the_file_has_no_name_and_writing_stays_at_home(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    loaded = load_model("embedded", "cpu")
    weights = share_weights(loaded)
    assert list(tmp_path.iterdir()) == []
    other = weights.model()
    first = next(other.parameters())
    first.data.zero_()
    assert bool(next(loaded.model.parameters()).any())


def test_a_full_disk_is_named(monkeypatch):
    def full(**_):
        raise OSError(errno.ENOSPC, "No space left on device")

    loaded = load_model("embedded", "cpu")
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(StorageError, match=r"No space left on device; make room, or .* TMPDIR"):
        share_weights(loaded)


def test_a_model_with_other_tensors_is_refused():
    weights = SharedWeights(load_model("embedded", "cpu").model)
    with pytest.raises(ModelError, match="expected the tensors that are shared"):
        weights._attach(nn.Linear(2, 2))


def test_a_model_on_a_gpu_is_not_shared(loaded):
    from dataclasses import replace

    assert share_weights(replace(loaded, device=torch.device("cuda"))) is None
