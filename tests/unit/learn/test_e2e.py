"""The E2E files that a user hands in."""

import os
import pickle
from collections import Counter
from pathlib import Path

import pytest

from fedsim.errors import ModelError, ScenarioError
from fedsim.learn.data import Task
from fedsim.learn.e2e import e2e_task, read_pairs

ROOT = Path(__file__).parents[3]
REAL = Path(os.environ.get("FEDSIM_REAL_DATA", ROOT.parent / "shared" / "data_real"))


def write(path, rows, header="mr,ref"):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def csv_file(tmp_path):
    return write(
        tmp_path / "train.csv",
        [f'"name[Place {i % 5}], food[NA]","Place {i % 5} number {i} is ""fine""."' for i in range(60)],
    )


@pytest.mark.parametrize("split", ["dirichlet", "iid"])
def test_rows_of_a_file_are_dealt_out_once_each(csv_file, split):
    task = e2e_task(csv_file, csv_file, num_clients=6, seed=0, split=split, min_examples=4, held_out_size=10)
    dealt = Counter(example for client in range(6) for example in task.shard(client))
    assert dealt == Counter(read_pairs(csv_file))
    assert all(task.num_examples(client) == len(task.shard(client)) >= 4 for client in range(6))
    assert len(task.held_out) == 10
    assert isinstance(task, Task)


def test_a_task_survives_the_way_to_a_worker(csv_file):
    task = e2e_task(csv_file, csv_file, num_clients=6, seed=0)
    assert pickle.loads(pickle.dumps(task)).shard(3) == task.shard(3)


def test_a_file_is_read_as_text(csv_file):
    pairs = read_pairs(csv_file)
    assert pairs[0].mr == "name[Place 0], food[NA]"
    assert pairs[0].ref == 'Place 0 number 0 is "fine".'


@pytest.mark.parametrize(
    ("rows", "header", "match"),
    [
        (['"name[A]","A."'], "mr,text", "missing: ref"),
        (['"name[A]","A."', '"name[B]",""'], "mr,ref", "row 2: expected text in column ref"),
        (['"","A."'], "mr,ref", "row 1: expected text in column mr"),
        (['"a","b","c","d"', '"x"'], "mr,ref", "train.csv"),
    ],
)
def test_a_broken_file_is_refused(tmp_path, rows, header, match):
    with pytest.raises(ModelError, match=match):
        read_pairs(write(tmp_path / "train.csv", rows, header))


def test_a_missing_or_empty_file_is_refused(tmp_path):
    with pytest.raises(ModelError, match="found no file"):
        read_pairs(tmp_path / "absent.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ModelError, match=r"empty\.csv"):
        read_pairs(tmp_path / "empty.csv")
    with pytest.raises(ModelError, match="no data"):
        read_pairs(write(tmp_path / "header.csv", []))


def test_too_many_clients_for_a_file_are_refused(csv_file):
    with pytest.raises(ScenarioError, match="60 rows are too few for 30 clients"):
        e2e_task(csv_file, csv_file, num_clients=30, seed=0)


@pytest.mark.skipif(not (REAL / "e2e").is_dir(), reason=f"no real E2E sample in {REAL}; set FEDSIM_REAL_DATA")
def test_the_real_e2e_files_are_read():
    task = e2e_task(
        REAL / "e2e" / "devset.csv",
        REAL / "e2e" / "testset_w_refs.csv",
        num_clients=50,
        seed=0,
        min_examples=20,
    )
    assert sum(task.num_examples(client) for client in range(50)) == 4672
    assert min(task.num_examples(client) for client in range(50)) >= 20
    assert all(example.mr.startswith("name[") for example in task.held_out)
