"""Which examples does each client hold? Tasks: named data sets, split into non-IID shards.

A shard is a pure function of task and client, made when it is asked for: a device that never takes part costs
nothing. `num_examples` needs no shard, so that a server can weigh clients that have not trained yet.
"""

import math
import random
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from fedsim.errors import ScenarioError
from fedsim.learn.affinity import belonging, owners
from fedsim.learn.embedded.grammar import NUM_HOUSES, World, house_name
from fedsim.learn.example import Example
from fedsim.seeds import Seeds

_SMALLEST_CONCENTRATION = 1e-6


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

    def groups(self, client: int) -> tuple[str, ...]:
        """Return the group of each example of this client, as `shard` would, without making them."""
        ...


@dataclass(frozen=True, slots=True)
class EmbeddedTask:
    """The built-in restaurant task: every client writes for a few houses.

    The world of houses and the held-out examples depend on `world_seed` alone, so the base model's loss is
    the same in every run; `seed` draws shards and their sizes.

    Args:
        num_clients: Any number.
        seed: Of the run.
        mean_examples: Mean size of a shard.
        quantity_sigma: Standard deviation of the logarithm of its size.
        min_examples: Smallest shard.
        concentration: Of the Dirichlet over houses; small means that a client knows one or two houses only.
        held_out_size: Dealt evenly to all houses.
        num_codes: Dish codes in the world.
        personal_percent: Share of (slot, value) pairs that each house says in its own way.
        world_seed: Of the houses' dialects.
        affinity: Per client, the set of devices it belongs to.
        strength: From 0 to 1: how much clients keep to the houses that belong to their set.
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
    affinity: tuple[int, ...] = field(default=(), repr=False)
    strength: float = 0.0

    @property
    def held_out(self) -> tuple[Example, ...]:
        """Examples of all houses in turn, made from a stream of their own."""
        rng = random.Random(Seeds(self.world_seed).seed("held_out"))
        world = self._world()
        return tuple(world.example(index % NUM_HOUSES, rng) for index in range(self.held_out_size))

    def num_examples(self, client: int) -> int:
        """Log-normal over clients, drawn from the client's own stream."""
        _check_client(client, self.num_clients)
        sigma = self.quantity_sigma
        if sigma == 0.0:
            return max(self.min_examples, self.mean_examples)
        rng = Seeds(self.seed).generator("shard_size", client)
        size = self.mean_examples * math.exp(sigma * rng.standard_normal() - sigma**2 / 2)
        return max(self.min_examples, round(size))

    def shard(self, client: int) -> tuple[Example, ...]:
        """Draw a mixture of houses, then each example from one of them."""
        rng, world = self._stream(client), self._world()
        return tuple(world.example(house, rng) for house in self._houses(client, rng))

    def groups(self, client: int) -> tuple[str, ...]:
        """Name the house of each example."""
        return tuple(house_name(house) for house in self._houses(client, self._stream(client)))

    def _stream(self, client: int) -> random.Random:
        return random.Random(Seeds(self.seed).seed("shard", client))

    def _houses(self, client: int, rng: random.Random) -> list[int]:
        """Draw the house of each example, before anything else of the stream."""
        size = self.num_examples(client)
        mixture = Seeds(self.seed).generator("houses", client).dirichlet(self._concentrations(client))
        return rng.choices(range(NUM_HOUSES), mixture.tolist(), k=size)

    def _concentrations(self, client: int) -> list[float]:
        """Per house: the same for all, or more for those that belong to the client's set of devices."""
        if self.strength == 0:
            return [self.concentration] * NUM_HOUSES
        dealt = owners(NUM_HOUSES, self.affinity, self.seed)
        weights = [belonging(self.affinity, owner, self.strength)[client] for owner in dealt]
        scale = self.concentration * NUM_HOUSES / sum(weights)
        return [max(scale * weight, _SMALLEST_CONCENTRATION) for weight in weights]

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

    def groups(self, client: int) -> tuple[str, ...]:
        """Return the group of each example."""
        return tuple(example.group for example in self.shard(client))


def _check_client(client: int, num_clients: int) -> None:
    if not 0 <= client < num_clients:
        raise ScenarioError(f"expected a client from 0 to {num_clients - 1}, got {client}")
