"""Tokens on disk: made once, the same numbers, never trusted when damaged."""

import multiprocessing

import numpy as np
import pytest

from fedsim.errors import StorageError
from fedsim.learn.data import FixedTask
from fedsim.learn.encode import encode
from fedsim.learn.example import Example
from fedsim.learn.token_store import FOLDER, _write, content_hash, token_table
from fedsim.learn.train import TrainingSettings
from fedsim.learn.trainer import ClientTrainer, shared_tokens

EXAMPLES = tuple(
    Example(
        f"name[Blue Lion {number}], food[Thai] =>",
        f" Blue Lion {'very ' * number}good.",
        learn_prompt=number == 3,
    )
    for number in range(7)
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDSIM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / FOLDER


def names(folder):
    return [path.name for path in folder.iterdir()]


def not_again(*_):
    pytest.fail("tokenised although the tokens are there")


def test_the_table_holds_what_encoding_gives(loaded, cache):
    table = token_table(loaded.tokenizer, EXAMPLES, 24)
    assert table.rows(range(7)) == encode(loaded.tokenizer, EXAMPLES, 24)
    assert table.rows([5, 0, 5]) == encode(loaded.tokenizer, [EXAMPLES[5], EXAMPLES[0], EXAMPLES[5]], 24)
    assert isinstance(table.ids, np.memmap)
    assert names(cache) == [table.path.name]


def test_tokens_are_made_once(loaded):
    first = token_table(loaded.tokenizer, EXAMPLES, 24)
    again = token_table(loaded.tokenizer, EXAMPLES, 24, make=not_again)
    assert (again.path, again.rows(range(7))) == (first.path, first.rows(range(7)))


def test_the_name_tells_all_that_the_tokens_depend_on(loaded):
    tokenizer = loaded.tokenizer
    last = EXAMPLES[-1]
    others = [
        (EXAMPLES[:-1], 24),
        (EXAMPLES, 25),
        ((*EXAMPLES[:-1], Example(last.prompt + " ", last.target)), 24),
        ((*EXAMPLES[:-1], Example(last.prompt + last.target[:1], last.target[1:])), 24),
        ((*EXAMPLES[:-1], Example(last.prompt, last.target, learn_prompt=True)), 24),
    ]
    known = {content_hash(tokenizer, examples, length) for examples, length in [(EXAMPLES, 24), *others]}
    assert len(known) == 6
    changed = type(tokenizer).from_pretrained(tokenizer.name_or_path)
    changed.add_tokens(["Blue Lion"])
    assert content_hash(changed, EXAMPLES, 24) not in known


@pytest.mark.parametrize("damage", ["torn", "flipped", "empty", "other"])
def test_a_damaged_file_is_made_again(loaded, damage):
    table = token_table(loaded.tokenizer, EXAMPLES, 24)
    good = table.path.read_bytes()
    bad = {
        "torn": good[:-5],
        "flipped": good[:-5] + bytes([good[-5] ^ 1]) + good[-4:],
        "empty": b"",
        "other": b"not a table",
    }[damage]
    table.path.write_bytes(bad)
    made = token_table(loaded.tokenizer, EXAMPLES, 24)
    assert made.rows(range(7)) == encode(loaded.tokenizer, EXAMPLES, 24)
    assert made.path.read_bytes() == good


def test_a_cache_that_cannot_be_written_is_said(loaded, cache):
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be")
    with pytest.raises(StorageError, match=r"tokens cannot be written: .*FEDSIM_CACHE"):
        token_table(loaded.tokenizer, EXAMPLES, 24)


def test_nothing_is_left_where_writing_fails(loaded, cache, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fedsim.learn.token_store.save_file", full)
    with pytest.raises(StorageError, match="No space left on device"):
        token_table(loaded.tokenizer, EXAMPLES, 24)
    assert names(cache) == []


def test_a_trainer_takes_its_shards_from_the_table(slotted, task, cache):
    loaded, slot, _ = slotted
    files = FixedTask(EXAMPLES, ((4, 1), (0, 2, 3)), ())
    trainer = ClientTrainer(loaded, slot, files, TrainingSettings(max_length=24))
    assert trainer._shard(1) == encode(loaded.tokenizer, files.shard(1), 24)
    assert len(names(cache)) == 1
    assert shared_tokens(loaded.tokenizer, task, 24) is None


def _write_often(tokenizer, barrier, failures):
    expected = encode(tokenizer, EXAMPLES, 24)
    path = token_table(tokenizer, EXAMPLES, 24).path
    barrier.wait()
    for _ in range(50):
        _write(path, expected)
        if token_table(tokenizer, EXAMPLES, 24, make=not_again).rows(range(7)) != expected:
            failures.value += 1


@pytest.mark.slow
def test_several_processes_may_write_at_once(loaded, cache):
    context = multiprocessing.get_context("spawn")
    barrier, failures = context.Barrier(3), context.Value("i", 0)
    processes = [
        context.Process(target=_write_often, args=(loaded.tokenizer, barrier, failures)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert failures.value == 0
    assert [name for name in names(cache) if name.endswith(".tmp")] == []
