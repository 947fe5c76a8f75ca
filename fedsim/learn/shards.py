"""Who holds what? Examples dealt to clients: alike, skewed by group or in size, by their owner, or by device.

All rules are one: a group of examples is cut into shares of clients. The *base measure* says how large each
client's share is to be on average (equal, log-normal, larger where client and group belong together); a
Dirichlet around it makes clients differ in what they hold.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fedsim.errors import ScenarioError
from fedsim.learn.affinity import belonging, owners
from fedsim.learn.data import Task

_SMALLEST_SHARE = 1e-6
_TFIDF_WORDS = 1000


@dataclass(frozen=True, slots=True)
class ShardSettings:
    """How examples are dealt.

    Args:
        kind: ``iid``, ``dirichlet`` over groups, or ``natural``: whole groups, each to one client.
        concentration: Of the Dirichlet; small means that a client knows few groups.
        min_examples: Smallest shard.
        quantity_sigma: Standard deviation of the logarithm of a client's share.
        affinity: Per client, the set of devices it belongs to.
        strength: From 0 to 1: how much of a group goes to the set of devices that it belongs to.
        affinity_seed: Decides which group belongs to which set.
    """

    kind: Literal["iid", "dirichlet", "natural"] = "dirichlet"
    concentration: float = 0.1
    min_examples: int = 8
    quantity_sigma: float = 0.0
    affinity: tuple[int, ...] = ()
    strength: float = 0.0
    affinity_seed: int = 0


def deal(
    groups: Sequence[str], num_clients: int, settings: ShardSettings, rng: np.random.Generator
) -> tuple[tuple[int, ...], ...]:
    """Deal examples to clients.

    Args:
        groups: One per example.
        num_clients: Number of shards.
        settings: How.
        rng: Source of the draws.

    Returns:
        Per client, sorted indices into `groups`; every index occurs exactly once.

    Raises:
        ScenarioError: If there are too few examples, or too few owners for a natural partition.

    Source:
        Hsu, Qi and Brown, "Measuring the effects of non-identical data distribution for federated visual
        classification", 2019; the split by group follows Yurochkin et al., ICML 2019.
    """
    _check_enough(len(groups), num_clients, settings.min_examples)
    if settings.kind == "natural":
        members = _by_owner(groups, num_clients, rng)
    else:
        members = _by_share(groups, num_clients, settings, rng)
    _fill(members, settings.min_examples)
    return tuple(tuple(sorted(part)) for part in members)


def topic_groups(texts: Sequence[str], num_topics: int, seed: int) -> list[str]:
    """Group texts without labels by topic: TF-IDF over their words, then k-means.

    Raises:
        ScenarioError: If there are fewer texts than topics, or no words in them.

    Source:
        The split of the published FedHera code: 1,000 words and mini-batch k-means.
    """
    from sklearn.cluster import MiniBatchKMeans  # noqa: PLC0415 - slow to import, and only topics need it
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415 - the same

    if len(texts) < num_topics:
        raise ScenarioError(f"{len(texts)} examples are too few for {num_topics} topics")
    try:
        matrix = TfidfVectorizer(max_features=_TFIDF_WORDS, stop_words="english").fit_transform(texts)
    except ValueError as error:
        raise ScenarioError(f"topics: expected words in the examples, found none: {error}") from error
    clusters = MiniBatchKMeans(num_topics, random_state=seed % 2**32, n_init=3).fit_predict(matrix)
    return [f"topic {index}" for index in clusters.tolist()]


@dataclass(frozen=True, slots=True)
class ShardStatistics:
    """What one client holds.

    Args:
        client: Its index.
        num_examples: Size of its shard.
        counts: Examples by group, the most frequent first.
        entropy_bits: Of the groups: 0 where there is one only.
    """

    client: int
    num_examples: int
    counts: dict[str, int]
    entropy_bits: float


def shard_statistics(task: Task) -> list[ShardStatistics]:
    """Count what every client of a task holds."""
    return [statistics_of(client, task) for client in range(task.num_clients)]


def statistics_of(client: int, task: Task) -> ShardStatistics:
    """Count what one client of a task holds."""
    counts = Counter(task.groups(client))
    shares = np.array(list(counts.values()), dtype=np.float64) / counts.total()
    entropy = max(0.0, -float((shares * np.log2(shares)).sum()))
    ordered = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    return ShardStatistics(client, counts.total(), ordered, entropy)


def _by_share(
    groups: Sequence[str], num_clients: int, settings: ShardSettings, rng: np.random.Generator
) -> list[list[int]]:
    """Cut every group into shares; where groups play no part, all examples are one."""
    plain = settings.kind == "iid" and settings.strength == 0
    by_group = _grouped([""] * len(groups) if plain else groups)
    sizes = np.exp(settings.quantity_sigma * rng.standard_normal(num_clients))
    members: list[list[int]] = [[] for _ in range(num_clients)]
    names = sorted(by_group)
    belong = [1.0] * len(names) if settings.strength == 0 else _belonging(len(names), settings)
    for name, weight in zip(names, belong, strict=True):
        indices = rng.permutation(by_group[name])
        shares = sizes * weight / (sizes * weight).sum()
        if settings.kind == "dirichlet":
            around = np.maximum(settings.concentration * num_clients * shares, _SMALLEST_SHARE)
            shares = rng.dirichlet(around)
        # Fractions add up over groups; rounding down every time would starve clients with small shares.
        cuts = np.floor(np.cumsum(shares)[:-1] * len(indices) + rng.random()).astype(int)
        for client, part in enumerate(np.split(indices, np.clip(cuts, 0, len(indices)))):
            members[client].extend(part.tolist())
    return members


def _belonging(num_groups: int, settings: ShardSettings) -> list[np.ndarray | float]:
    sets = settings.affinity
    dealt = owners(num_groups, sets, settings.affinity_seed)
    return [belonging(sets, owner, settings.strength) for owner in dealt]


def _by_owner(groups: Sequence[str], num_clients: int, rng: np.random.Generator) -> list[list[int]]:
    by_group = _grouped(groups)
    if len(by_group) < num_clients:
        raise ScenarioError(
            f"expected at least as many owners as the {num_clients} devices, found {len(by_group)}; take "
            "fewer devices, another column, or dirichlet shards"
        )
    members: list[list[int]] = [[] for _ in range(num_clients)]
    names = sorted(by_group)
    for place, index in enumerate(rng.permutation(len(names)).tolist()):
        members[place % num_clients].extend(by_group[names[index]])
    return members


def _fill(members: list[list[int]], min_examples: int) -> None:
    """Move examples from whoever holds the most to whoever holds too few."""
    for part in members:
        while len(part) < min_examples:
            richest = max(range(len(members)), key=lambda other: len(members[other]))
            part.append(members[richest].pop())


def _grouped(groups: Sequence[str]) -> dict[str, list[int]]:
    by_group: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        by_group[group].append(index)
    return by_group


def _check_enough(num_examples: int, num_clients: int, min_examples: int) -> None:
    if num_examples < num_clients * min_examples:
        raise ScenarioError(
            f"{num_examples} rows are too few for {num_clients} clients with at least {min_examples} "
            "examples each; take fewer clients or a smaller minimum"
        )
