import errno
import json
import os

import numpy as np
import pytest
import torch
from safetensors.torch import save

from fedsim.errors import InputError, StorageError
from fedsim.experiment.journal import Journal
from fedsim.experiment.journal_index import read_index
from fedsim.learn.freeze import freeze, thaw
from fedsim.lora.basis import compact_svd
from fedsim.lora.factors import Factors
from fedsim.method.bundle import Combined, Measurements
from fedsim.method.messages import RankPlan
from tests import cohorts


def adapter(seed=0):
    return {"layer": cohorts.factors(6, 4, 3, seed)}


def objects(journal):
    return sorted((journal.directory / "objects").iterdir())


@pytest.fixture
def journal(tmp_path):
    found = Journal(tmp_path)
    yield found
    found.close()


# --- values as bytes ----------------------------------------------------------------------------------------


def test_a_value_comes_back_bit_for_bit():
    value = Combined(
        spectrum={"a": np.array([0.1, 1e-300]), "b": np.zeros(0)},
        alignments={3: 1 / 3, 1: -0.0},
        failed={7: "ünfinite"},
        pruned={2: 4},
        measured=Measurements({"x": None, "y": 0.1}, {3: {"x": 1e308}}, {"a": [1.0, 2.0]}),
    )
    again = thaw(freeze(value))
    assert again.alignments == value.alignments
    assert list(again.alignments) == [3, 1]
    assert (again.failed, again.pruned, again.measured) == (value.failed, value.pruned, value.measured)
    assert again.spectrum["a"].tobytes() == value.spectrum["a"].tobytes()
    assert again.spectrum["b"].shape == (0,)


def test_what_follows_from_the_rest_is_not_kept():
    plan = RankPlan((3, 2), (1, 0), (0, 4))
    again = thaw(freeze(plan))
    assert again == plan
    assert hash(again) == hash(plan)


def test_tensors_keep_their_layout():
    basis = compact_svd(cohorts.factors(9, 7, 4, 0))
    wide = torch.arange(12.0).reshape(3, 4).T
    again = thaw(freeze({"basis": basis, "wide": wide, "half": torch.ones(2, dtype=torch.bfloat16)}))
    for name in ("u", "sigma", "vh"):
        then, now = getattr(basis, name), getattr(again["basis"], name)
        assert torch.equal(then, now)
        assert then.dtype == now.dtype
    assert torch.equal(again["wide"], wide)
    assert again["wide"].stride() == wide.stride() == (1, 4)
    assert again["half"].dtype == torch.bfloat16


def test_equal_values_give_equal_bytes():
    assert freeze(adapter(1)) == freeze(adapter(1))
    assert freeze(adapter(1)) != freeze(adapter(2))


@pytest.mark.parametrize(
    "name", ["os:system", "fedsim.seeds:Seeds", "fedsim.method.bundle:column_seed", "fedsim.lora.x:Y", "x"]
)
def test_a_file_can_name_no_other_class(name):
    tree = json.dumps({"is": name, "fields": {}})
    with pytest.raises((InputError, ImportError)):
        thaw(save({}, {"tree": tree}))


@pytest.mark.parametrize("content", [b"", b"\x08", b"x" * 100, save({"a": torch.ones(1)})])
def test_other_bytes_are_refused(content):
    with pytest.raises(InputError, match="found something else"):
        thaw(content)


def test_what_is_no_value_is_refused():
    with pytest.raises(TypeError, match="expected plain data"):
        freeze({"f": print})


# --- the journal --------------------------------------------------------------------------------------------


def test_what_is_kept_is_found_after_opening_again(tmp_path):
    journal = Journal(tmp_path)
    journal.keep("update", 4, "q", told={"loss": 0.1}, content=adapter())
    journal.close()
    again = Journal(tmp_path)
    entry = again.find("update", 4, "q")
    assert entry.told == {"loss": 0.1}
    assert torch.equal(again.load(entry)["layer"].lora_a, adapter()["layer"].lora_a)
    assert again.find("update", 5, "q") is None
    again.close()


def test_another_question_is_refused(journal):
    journal.keep("update", 4, "q", told=1)
    with pytest.raises(InputError, match="answers another question"):
        journal.find("update", 4, "r")


def test_the_same_result_may_come_again_and_another_may_not(journal):
    journal.keep("update", 4, "q", told=1, content=adapter(1))
    journal.keep("update", 4, "q", told=1, content=adapter(1))
    with pytest.raises(InputError, match="came out differently"):
        journal.keep("update", 4, "q", told=1, content=adapter(2))
    assert len(objects(journal)) == 1


def test_content_that_two_share_goes_with_the_second(journal):
    journal.keep("update", 1, "q", content=adapter())
    journal.keep("update", 2, "q", content=adapter())
    assert len(objects(journal)) == 1
    journal.drop("update", 1)
    assert len(objects(journal)) == 1
    journal.drop("update", 2)
    journal.drop("update", 2)
    assert objects(journal) == []
    assert journal.is_dropped(journal.get("update", 1))


def test_what_a_kill_left_half_done_is_swept(tmp_path):
    journal = Journal(tmp_path)
    journal.keep("update", 1, "q", content=adapter())
    journal.close()
    half = tmp_path / "journal" / "objects" / "abc.tmp"
    unknown = tmp_path / "journal" / "objects" / f"{'0' * 64}.safetensors"
    half.write_bytes(b"half")
    unknown.write_bytes(b"written, and not in the index yet")
    again = Journal(tmp_path)
    assert len(objects(again)) == 1
    again.close()


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_a_torn_last_line_is_dropped(tmp_path, cut):
    journal = Journal(tmp_path)
    journal.keep("evaluation", 0, "", told=0)
    journal.keep("evaluation", 1, "", told=1)
    journal.close()
    index = tmp_path / "journal" / "index.jsonl"
    index.write_bytes(index.read_bytes()[:-cut])
    again = Journal(tmp_path)
    assert again.get("evaluation", 0).told == 0
    assert again.get("evaluation", 1) is None
    again.keep("evaluation", 1, "", told=1)
    again.close()
    assert len(read_index(index).entries) == 2


def test_every_flipped_byte_of_the_index_is_found(tmp_path):
    journal = Journal(tmp_path)
    journal.keep("evaluation", 0, "", told=0.5)
    journal.keep("update", 0, "q", content=adapter())
    journal.close()
    index = tmp_path / "journal" / "index.jsonl"
    whole = index.read_bytes()
    for position in range(len(whole) - 1):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        index.write_bytes(damaged)
        with pytest.raises(InputError, match=r"index\.jsonl:\d+: damaged"):
            read_index(index)


def test_a_missing_line_is_found(tmp_path):
    journal = Journal(tmp_path)
    for number in range(3):
        journal.keep("evaluation", number, "", told=number)
    journal.close()
    index = tmp_path / "journal" / "index.jsonl"
    lines = index.read_bytes().splitlines(keepends=True)
    index.write_bytes(lines[0] + lines[2])
    with pytest.raises(InputError, match=":2: damaged"):
        Journal(tmp_path)


def test_damaged_content_is_refused(journal):
    journal.keep("update", 1, "q", content=adapter())
    (path,) = objects(journal)
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(InputError, match="damaged, its content is not what its name says"):
        journal.load(journal.get("update", 1))
    path.unlink()
    assert not journal.has_content(journal.get("update", 1))
    with pytest.raises(InputError, match="restore it from a copy"):
        journal.load(journal.get("update", 1))


def test_a_full_disk_is_said_and_leaves_no_claim(tmp_path, monkeypatch):
    journal = Journal(tmp_path)
    journal.keep("evaluation", 0, "", told=0)

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device; make room, then resume"):
        journal.keep("update", 1, "q", content=adapter())
    with pytest.raises(StorageError):
        journal.sync()
    journal.close()
    monkeypatch.undo()
    again = Journal(tmp_path)
    assert again.get("update", 1) is None
    assert objects(again) == []
    again.close()


def test_a_line_that_does_not_fit_ends_the_journal(tmp_path, monkeypatch):
    journal = Journal(tmp_path)
    journal.keep("evaluation", 0, "", told=0)

    class Full:
        closed = False

        def write(self, line):
            with (tmp_path / "journal" / "index.jsonl").open("ab") as index:
                index.write(line[:7])

        def flush(self):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def close(self):
            self.closed = True

    journal.close()
    journal._file = Full()
    with pytest.raises(StorageError, match="No space left"):
        journal.keep("evaluation", 1, "", told=1)
    with pytest.raises(StorageError, match="closed after a write that failed"):
        journal.keep("evaluation", 2, "", told=2)
    again = Journal(tmp_path)
    assert again.numbers("evaluation") == [0]
    again.close()


def test_a_journal_opened_to_be_read_changes_nothing(tmp_path):
    journal = Journal(tmp_path)
    journal.keep("update", 1, "q", content=adapter())
    journal.close()
    half = tmp_path / "journal" / "objects" / "abc.tmp"
    half.write_bytes(b"half")
    before = (tmp_path / "journal" / "index.jsonl").read_bytes()
    reader = Journal(tmp_path, read_only=True)
    reader.drop("update", 1)
    assert isinstance(reader.load(reader.get("update", 1))["layer"], Factors)
    with pytest.raises(StorageError, match="read only"):
        reader.keep("update", 2, "q", told=1)
    assert half.exists()
    assert (tmp_path / "journal" / "index.jsonl").read_bytes() == before
