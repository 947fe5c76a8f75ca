"""Shards: pure functions of task and client, non-IID and cheap."""

from collections import Counter

import numpy as np
import pytest

from fedsim.errors import ScenarioError
from fedsim.learn.data import EmbeddedTask, Task


def houses(task, client):
    return Counter(example.prompt.split("]")[0] for example in task.shard(client))


def test_shards_are_the_same_at_every_call_and_for_every_number_of_clients():
    small, large = EmbeddedTask(num_clients=4, seed=3), EmbeddedTask(num_clients=1_000_000, seed=3)
    assert small.shard(2) == small.shard(2) == large.shard(2)
    assert len(large.shard(999_999)) == large.num_examples(999_999)
    assert isinstance(small, Task)


def test_another_seed_deals_other_shards_but_holds_out_the_same():
    a, b = EmbeddedTask(num_clients=4, seed=1), EmbeddedTask(num_clients=4, seed=2)
    assert a.shard(0) != b.shard(0)
    assert a.held_out == b.held_out
    assert len(a.held_out) == a.held_out_size


def test_no_client_holds_a_held_out_example():
    task = EmbeddedTask(num_clients=20, seed=1)
    held = set(task.held_out)
    assert not any(held & set(task.shard(client)) for client in range(20))


def test_sizes_are_skewed_and_bounded():
    task = EmbeddedTask(num_clients=300, seed=0)
    sizes = [task.num_examples(client) for client in range(300)]
    assert min(sizes) >= task.min_examples
    assert max(sizes) > 4 * min(sizes)
    assert 0.8 < np.mean(sizes) / task.mean_examples < 1.25
    assert len(task.shard(7)) == sizes[7]


def test_small_concentration_means_few_houses():
    skewed = EmbeddedTask(num_clients=20, seed=0, concentration=0.05)
    even = EmbeddedTask(num_clients=20, seed=0, concentration=100.0)
    assert np.mean([len(houses(skewed, c)) for c in range(20)]) < 5
    assert np.mean([len(houses(even, c)) for c in range(20)]) > 12


@pytest.mark.parametrize("client", [-1, 4])
def test_a_client_that_does_not_exist_is_refused(client):
    with pytest.raises(ScenarioError, match=str(client)):
        EmbeddedTask(num_clients=4, seed=0).shard(client)


def test_houses_follow_the_sets_of_devices_they_belong_to():
    sets = (0, 1) * 20
    task = EmbeddedTask(num_clients=40, seed=1, affinity=sets, strength=1.0)
    known = [set(), set()]
    for client in range(40):
        known[sets[client]] |= {example.group for example in task.shard(client)}
    assert not known[0] & known[1]
    loose = EmbeddedTask(num_clients=40, seed=1, affinity=sets, strength=0.0)
    assert loose.shard(3) == EmbeddedTask(num_clients=40, seed=1).shard(3)


def test_groups_are_those_of_the_shard_without_its_sentences():
    task = EmbeddedTask(num_clients=20, seed=4, affinity=tuple(k % 4 for k in range(20)), strength=0.5)
    for client in range(20):
        assert task.groups(client) == tuple(example.group for example in task.shard(client))
    with pytest.raises(ScenarioError, match="expected a client from 0 to 19, got 20"):
        task.groups(20)
