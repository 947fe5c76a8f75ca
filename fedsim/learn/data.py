"""Which examples does each client hold? Tasks: named data sets, split into non-IID shards.

A shard is a pure function of task and client, made when it is asked for: a device that never takes part costs
nothing. `num_examples` needs no shard, so that a server can weigh clients that have not trained yet.
"""

import math
import random
import re
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import datasets
import numpy as np

from fedsim.errors import ModelError, ScenarioError
from fedsim.learn.embedded.grammar import NUM_HOUSES, World
from fedsim.learn.example import Example
from fedsim.seeds import Seeds


@runtime_checkable
class Task(Protocol):
    """A data set, split over clients, with held-out examples beside it."""

    @property
    def num_clients(self) -> int:
        """Shards are numbered from zero."""
        ...

    @property
    def held_out(self) -> tuple[Example, ...]:
        """Examples that no client holds."""
        ...

    def num_examples(self, client: int) -> int:
        """Size of a shard, without making it."""
        ...

    def shard(self, client: int) -> tuple[Example, ...]:
        """Return the examples of this client, the same ones at every call."""
        ...


@dataclass(frozen=True, slots=True)
class EmbeddedTask:
    """The built-in restaurant task: every client writes for a few houses.

    The world of houses and the held-out examples depend on `world_seed` alone, so the base model's loss is
    the same in every run; `seed` draws shards and their sizes.

    Args:
        num_clients: Any number.
        seed: Of the run.
        mean_examples: Median size of a shard.
        quantity_sigma: Standard deviation of the logarithm of its size.
        min_examples: Smallest shard.
        concentration: Of the Dirichlet over houses; small means that a client knows one or two houses only.
        held_out_size: Dealt evenly to all houses.
        num_codes: Dish codes in the world.
        personal_percent: Share of (slot, value) pairs that each house says in its own way.
        world_seed: Of the houses' dialects.
    """

    num_clients: int
    seed: int
    mean_examples: int = 120
    quantity_sigma: float = 0.6
    min_examples: int = 16
    concentration: float = 0.1
    held_out_size: int = 256
    num_codes: int = 128
    personal_percent: int = 25
    world_seed: int = 0

    @property
    def held_out(self) -> tuple[Example, ...]:
        """Examples of all houses in turn, made from a stream of their own."""
        rng = random.Random(Seeds(self.world_seed).seed("held_out"))
        world = self._world()
        return tuple(world.example(index % NUM_HOUSES, rng) for index in range(self.held_out_size))

    def num_examples(self, client: int) -> int:
        """Log-normal over clients, drawn from the client's own stream."""
        _check_client(client, self.num_clients)
        rng = Seeds(self.seed).generator("shard_size", client)
        size = self.mean_examples * math.exp(self.quantity_sigma * rng.standard_normal())
        return max(self.min_examples, round(size))

    def shard(self, client: int) -> tuple[Example, ...]:
        """Draw a mixture of houses, then each example from one of them."""
        size = self.num_examples(client)
        mixture = Seeds(self.seed).generator("houses", client).dirichlet([self.concentration] * NUM_HOUSES)
        rng = random.Random(Seeds(self.seed).seed("shard", client))
        world = self._world()
        houses = rng.choices(range(NUM_HOUSES), mixture.tolist(), k=size)
        return tuple(world.example(house, rng) for house in houses)

    def _world(self) -> World:
        return World.build(self.world_seed, self.num_codes, self.personal_percent)


@dataclass(frozen=True, slots=True, eq=False)
class FixedTask:
    """Examples from files, with the split decided beforehand.

    Args:
        examples: All training examples.
        members: Per client, indices into `examples`.
        held_out: Examples that no client holds.
    """

    examples: tuple[Example, ...] = field(repr=False)
    members: tuple[tuple[int, ...], ...] = field(repr=False)
    held_out: tuple[Example, ...] = field(repr=False)

    @property
    def num_clients(self) -> int:
        """Number of shards."""
        return len(self.members)

    def num_examples(self, client: int) -> int:
        """Size of a shard."""
        _check_client(client, self.num_clients)
        return len(self.members[client])

    def shard(self, client: int) -> tuple[Example, ...]:
        """Return the examples of this client."""
        _check_client(client, self.num_clients)
        return tuple(self.examples[index] for index in self.members[client])


def e2e_task(
    train_file: Path,
    held_out_file: Path,
    *,
    num_clients: int,
    seed: int,
    split: Literal["dirichlet", "iid"] = "dirichlet",
    concentration: float = 0.5,
    min_examples: int = 8,
    held_out_size: int = 256,
) -> FixedTask:
    """Read the E2E NLG data set in its official CSV form and split it over clients.

    Args:
        train_file: Columns ``mr`` and ``ref``; dealt to the clients.
        held_out_file: The same columns; `held_out_size` rows are drawn from it.
        num_clients: Number of shards.
        seed: Of split and held-out sample.
        split: ``dirichlet`` over the place's name, or ``iid``.
        concentration: Of the Dirichlet; small means more skew.
        min_examples: Smallest shard; clients below it get examples of the largest ones.
        held_out_size: Fewer where the file has fewer rows.

    Raises:
        ModelError: If a file or one of its columns is missing, or a cell is empty.
        ScenarioError: If there are too few rows for this many clients.
    """
    examples, held_out = read_pairs(train_file), read_pairs(held_out_file)
    if len(examples) < num_clients * min_examples:
        raise ScenarioError(
            f"{train_file}: {len(examples)} rows are too few for {num_clients} clients with at least "
            f"{min_examples} examples each; take fewer clients or a smaller minimum"
        )
    rng = Seeds(seed).generator("split")
    if split == "iid":
        members = [part.tolist() for part in np.array_split(rng.permutation(len(examples)), num_clients)]
    else:
        labels = [_label(example.mr) for example in examples]
        members = dirichlet_split(labels, num_clients, concentration, min_examples, rng)
    sample = Seeds(seed).generator("held_out").permutation(len(held_out))[:held_out_size]
    return FixedTask(
        examples=examples,
        members=tuple(tuple(sorted(part)) for part in members),
        held_out=tuple(held_out[index] for index in sorted(sample.tolist())),
    )


def read_pairs(path: Path) -> tuple[Example, ...]:
    """Read a CSV file with the columns ``mr`` and ``ref``.

    Raises:
        ModelError: If the file or a column is missing, or a cell is empty.
    """
    if not path.is_file():
        raise ModelError(f"{path}: expected a CSV file with the columns mr and ref, found no file")
    table = _load_csv(path)
    missing = [column for column in ("mr", "ref") if column not in table.column_names]
    if missing:
        raise ModelError(
            f"{path}:1: expected the columns mr and ref, found {', '.join(table.column_names)}; "
            f"missing: {', '.join(missing)}"
        )
    pairs = zip(table["mr"], table["ref"], strict=True)
    return tuple(_checked(path, row, mr, ref) for row, (mr, ref) in enumerate(pairs, start=1))


def dirichlet_split(
    labels: Sequence[str], num_clients: int, concentration: float, min_examples: int, rng: np.random.Generator
) -> list[list[int]]:
    """Deal examples to clients so that each label is spread by its own Dirichlet draw.

    Args:
        labels: One per example.
        num_clients: Number of shards.
        concentration: Of the symmetric Dirichlet.
        min_examples: A client below it takes examples from whoever holds the most.
        rng: Source of the draws.

    Returns:
        Per client, indices into `labels`; every index occurs exactly once.

    Source:
        Hsu, Qi and Brown, "Measuring the effects of non-identical data distribution for federated visual
        classification", 2019; the split by label follows Yurochkin et al., ICML 2019.
    """
    by_label: dict[str, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        by_label[label].append(index)
    members: list[list[int]] = [[] for _ in range(num_clients)]
    for label in sorted(by_label):
        indices = rng.permutation(by_label[label])
        shares = rng.dirichlet([concentration] * num_clients)
        cuts = np.round(np.cumsum(shares)[:-1] * len(indices)).astype(int)
        for client, part in enumerate(np.split(indices, cuts)):
            members[client].extend(part.tolist())
    for client in range(num_clients):
        while len(members[client]) < min_examples:
            richest = max(range(num_clients), key=lambda other: len(members[other]))
            members[client].append(members[richest].pop())
    return members


def _load_csv(path: Path) -> datasets.Dataset:
    """Read through `datasets`, which must leave nothing in the user's cache."""
    with tempfile.TemporaryDirectory(prefix="fedsim-") as cache:
        try:
            return datasets.load_dataset(
                "csv",
                data_files=str(path),
                split="train",
                cache_dir=cache,
                keep_in_memory=True,
                keep_default_na=False,
                dtype=str,
            )
        except (datasets.exceptions.DatasetGenerationError, ValueError, OSError) as error:
            cause = error.__cause__ or error
            raise ModelError(f"{path}: expected a CSV file with the columns mr and ref: {cause}") from error


def _checked(path: Path, row: int, mr: str | None, ref: str | None) -> Example:
    if not mr or not ref:
        column = "ref" if mr else "mr"
        raise ModelError(f"{path}: row {row}: expected text in column {column}, found nothing")
    return Example(mr, ref)


def _label(mr: str) -> str:
    """Return the place that an E2E meaning representation is about, or all of it where it names none."""
    match = re.search(r"\bname\[([^\]]*)\]", mr)
    return match[1] if match else mr


def _check_client(client: int, num_clients: int) -> None:
    if not 0 <= client < num_clients:
        raise ScenarioError(f"expected a client from 0 to {num_clients - 1}, got {client}")
