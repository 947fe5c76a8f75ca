"""Who holds what: laws of every rule, and the skew that each is there for."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsim.errors import ScenarioError
from fedsim.learn.affinity import belonging, owners
from fedsim.learn.data import FixedTask
from fedsim.learn.example import Example
from fedsim.learn.shards import ShardSettings, deal, shard_statistics, topic_groups


def generator(seed=0):
    return np.random.default_rng(seed)


@settings(max_examples=40, deadline=None)
@given(
    groups=st.lists(st.sampled_from("abcd"), min_size=30, max_size=80),
    clients=st.integers(1, 6),
    kind=st.sampled_from(["iid", "dirichlet"]),
    concentration=st.sampled_from([0.01, 0.5, 50.0]),
    sigma=st.sampled_from([0.0, 1.5]),
    strength=st.sampled_from([0.0, 0.7, 1.0]),
)
def test_every_example_is_dealt_once_and_everybody_has_enough(
    groups, clients, kind, concentration, sigma, strength
):
    rule = ShardSettings(kind, concentration, 5, sigma, tuple(i % 3 for i in range(clients)), strength)
    members = deal(groups, clients, rule, generator())
    assert sorted(index for part in members for index in part) == list(range(len(groups)))
    assert min(map(len, members)) >= 5
    assert members == deal(groups, clients, rule, generator())


def test_the_seed_decides():
    rule = ShardSettings("iid", min_examples=1)
    assert deal(["a"] * 50, 5, rule, generator(0)) != deal(["a"] * 50, 5, rule, generator(1))


def test_a_small_concentration_means_few_groups_per_client():
    groups = [str(index % 10) for index in range(2000)]

    def mean_groups(**rule):
        members = deal(groups, 20, ShardSettings(min_examples=1, **rule), generator())
        return np.mean([len({groups[index] for index in part}) for part in members])

    assert mean_groups(concentration=0.05) < 5
    assert mean_groups(concentration=100.0) == 10
    assert mean_groups(kind="iid") == 10


def test_iid_shards_are_of_one_size_and_quantity_skew_undoes_that():
    def sizes(sigma):
        rule = ShardSettings("iid", quantity_sigma=sigma)
        return [len(part) for part in deal([""] * 2000, 20, rule, generator())]

    assert max(sizes(0.0)) - min(sizes(0.0)) <= 1
    assert max(sizes(1.2)) > 5 * min(sizes(1.2))


def test_natural_shards_keep_owners_whole():
    groups = [f"user {index % 12}" for index in range(120)]
    members = deal(groups, 5, ShardSettings("natural"), generator())
    holders = Counter()
    for part in members:
        holders.update({groups[index] for index in part})
    assert set(holders.values()) == {1}
    assert len(holders) == 12
    with pytest.raises(ScenarioError, match="as many owners as the 13 devices, found 12"):
        deal(groups, 13, ShardSettings("natural", min_examples=1), generator())


def test_groups_go_where_they_belong():
    sets = tuple(index % 2 for index in range(20))
    groups = [str(index % 8) for index in range(4000)]
    dealt = owners(8, sets, seed=7)
    assert sorted(dealt) == [0] * 4 + [1] * 4
    for kind in ("iid", "dirichlet"):
        rule = ShardSettings(kind, 1.0, 1, affinity=sets, strength=0.9, affinity_seed=7)
        members = deal(groups, 20, rule, generator())
        at_home = sum(
            sets[client] == dealt[int(groups[index])] for client in range(20) for index in members[client]
        )
        assert at_home / len(groups) == pytest.approx(0.95, abs=0.04)


def test_belonging_weighs_a_set_and_keeps_the_mean():
    assert belonging((0, 0, 1, 1), 1, 0.5).tolist() == [0.5, 0.5, 1.5, 1.5]
    assert belonging((0, 0, 1, 1), 1, 0.0).tolist() == [1.0] * 4
    assert belonging((0, 1, 1, 2), 2, 1.0).tolist() == [0.0, 0.0, 0.0, 4.0]


def test_too_few_examples_are_refused():
    with pytest.raises(ScenarioError, match="60 rows are too few for 30 clients with at least 8"):
        deal(["a"] * 60, 30, ShardSettings(), generator())


def test_topics_tell_texts_apart():
    cooking = [f"boil potatoes onions soup kitchen {index}" for index in range(30)]
    football = [f"striker goal stadium referee league {index}" for index in range(30)]
    found = topic_groups(cooking + football, 2, seed=0)
    assert len(set(found[:30])) == len(set(found[30:])) == 1
    assert found[0] != found[30]
    assert found == topic_groups(cooking + football, 2, seed=0)
    with pytest.raises(ScenarioError, match="3 examples are too few for 10 topics"):
        topic_groups(cooking[:3], 10, seed=0)
    with pytest.raises(ScenarioError, match="expected words"):
        topic_groups(["the", "of", "and"], 2, seed=0)


def test_statistics_count_groups_and_their_entropy():
    examples = tuple(Example("p", "t", group=group) for group in "aabbcccc")
    (item, other) = shard_statistics(FixedTask(examples, ((0, 1, 2, 3), (4, 5, 6, 7)), ()))
    assert (item.num_examples, item.counts, item.entropy_bits) == (4, {"a": 2, "b": 2}, 1.0)
    assert (other.counts, other.entropy_bits) == ({"c": 4}, 0.0)
