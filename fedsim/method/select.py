"""Who is asked? Rules that put the devices that are online and idle in the order in which they are asked.

A rule is a pure function of the candidates, of a seeded stream, and of what the server has seen of clients.
It knows no budgets: who can carry nothing is declined when its turn comes, and the next in order is asked.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np

from fedsim.method.experience import Experience
from fedsim.seeds import Seeds, mix, mix_one


@dataclass(frozen=True, slots=True)
class Occasion:
    """What a rule is told besides the candidates.

    Args:
        version: Newest global version.
        attempt: Number of the round; under buffered pacing, of the look at the fleet.
        seats: How many clients are wanted.
        wanted: How much of the order must be returned; more than `seats`, since some may be declined.
        experience: What was seen of clients.
    """

    version: int
    attempt: int
    seats: int
    wanted: int
    experience: Experience

    def wanting(self, wanted: int) -> "Occasion":
        """Return the same occasion with more of the order, or less."""
        return self if wanted == self.wanted else replace(self, wanted=wanted)


class Select(Protocol):
    """A selection rule."""

    counts_presence: ClassVar[bool]
    """Whether the server must count who is there at each look."""

    def __call__(self, candidates: np.ndarray, occasion: Occasion) -> np.ndarray:
        """Return candidates (client indices, int64) in the order in which they are asked.

        At least the first ``occasion.wanted``, or all that the rule would ever ask.
        """
        ...


@runtime_checkable
class Draw(Protocol):
    """What a rule can do besides that needs no list of who is there."""

    def draw(self, num_devices: int, occasion: Occasion) -> Iterator[int]:
        """Name devices of a fleet without end, some of them more than once."""
        ...


@dataclass(frozen=True, slots=True)
class UniformSelect:
    """Every candidate is equally likely, and methods under one seed meet the same devices.

    The order is that of hash(seed, version, attempt, device). It does not depend on who else is online, so
    two runs that see almost the same fleet choose almost the same cohort.

    Args:
        seeds: Streams of the run.
    """

    counts_presence: ClassVar[bool] = False
    seeds: Seeds

    def __call__(self, candidates: np.ndarray, occasion: Occasion) -> np.ndarray:
        """Order the candidates by hash."""
        keys = _hashes(self.seeds, candidates, occasion)
        if 4 * occasion.wanted < len(candidates):
            near = np.argpartition(keys, occasion.wanted)[: occasion.wanted]
            candidates, keys = candidates[near], keys[near]
        return candidates[np.lexsort((candidates, keys))]

    def draw(self, num_devices: int, occasion: Occasion) -> Iterator[int]:
        """Name devices by hash(seed, version, attempt, place); those who are there are a fair sample."""
        seed = self.seeds.seed("draw", occasion.version, occasion.attempt)
        for place in count():
            yield mix_one(seed, place) * num_devices >> 64


@dataclass(frozen=True, slots=True)
class RoundRobinSelect:
    """Whoever was asked least often comes first, then whoever has the lowest index: everybody has a turn."""

    counts_presence: ClassVar[bool] = False

    def __call__(self, candidates: np.ndarray, occasion: Occasion) -> np.ndarray:
        """Order the candidates by how often they were asked."""
        return candidates[np.lexsort((candidates, _known(occasion.experience, candidates).asked[candidates]))]


@dataclass(frozen=True, slots=True)
class FastestSelect:
    """Whoever answered fastest comes first.

    A client without an aggregated update counts as one of median speed: after those known to be faster,
    before those known to be slower. So every client can get in, and slow ones come last.

    Args:
        seeds: Streams of the run; they break ties.
    """

    counts_presence: ClassVar[bool] = False
    seeds: Seeds

    def __call__(self, candidates: np.ndarray, occasion: Occasion) -> np.ndarray:
        """Order the candidates by the duration of their last aggregated assignment."""
        known = _known(occasion.experience, candidates)
        met = known.aggregated > 0
        median_s = float(np.median(known.duration_s[met])) if met.any() else 0.0
        durations_s = np.where(met[candidates], known.duration_s[candidates], median_s)
        return candidates[np.lexsort((_hashes(self.seeds, candidates, occasion), durations_s))]


@dataclass(frozen=True, slots=True)
class AvailabilityAwareSelect:
    """Whoever is rarely online comes first, so that data of rare visitors are not lost.

    The share of time online is the share of the server's looks at which the device was there.

    Args:
        seeds: Streams of the run; they break ties.

    Source:
        Abdelmoniem et al., "REFL: Resource-efficient federated learning", EuroSys 2023: least available
        first. Differs: there a device predicts its own availability.
    """

    counts_presence: ClassVar[bool] = True
    seeds: Seeds

    def __call__(self, candidates: np.ndarray, occasion: Occasion) -> np.ndarray:
        """Order the candidates by how rarely they were seen."""
        seen = _known(occasion.experience, candidates).seen[candidates]
        return candidates[np.lexsort((_hashes(self.seeds, candidates, occasion), seen))]


@dataclass(frozen=True, slots=True)
class OortSelect:
    """Clients that teach much and answer soon come first; a falling share of seats explores new ones.

    Utility is statistical (examples x loss, of the last *aggregated* update) plus a bonus for clients that
    have long not been heard, times a penalty for those slower than a preferred duration. Seats are drawn with
    probability proportional to utility among those above a cut-off. The pacer lets slower clients in whenever
    the utility gained over a window of rounds has fallen.

    Args:
        seeds: Streams of the run.
        exploration: Share of seats for clients without an aggregated update, at first.
        exploration_decay: Factor on that share per round.
        min_exploration: Its floor.
        cut_off: A client needs this share of the utility of the last one that would get a seat.
        penalty: Exponent on preferred duration over own duration, for slower clients.
        window: Rounds over which the pacer compares.
        first_percentile: Preferred duration at first, as a percentile of the known ones.
        percentile_step: What the pacer adds to it.

    Source:
        Lai et al., "Oort: Efficient federated learning via guided participant selection", OSDI 2021,
        algorithm 1. Differs: the loss is the mean over local steps, not the root of the mean square over
        examples; the preferred duration is a percentile, as in the published code; new clients are explored
        at random, since a server cannot know their speed.
    """

    counts_presence: ClassVar[bool] = False
    seeds: Seeds
    exploration: float = 0.9
    exploration_decay: float = 0.98
    min_exploration: float = 0.2
    cut_off: float = 0.95
    penalty: float = 2.0
    window: int = 20
    first_percentile: float = 30.0
    percentile_step: float = 5.0

    def __call__(self, candidates: np.ndarray, occasion: Occasion) -> np.ndarray:
        """Draw the seats; whoever was not drawn follows in the order of hash."""
        known = _known(occasion.experience, candidates)
        generator = self.seeds.generator("oort", occasion.version, occasion.attempt)
        order = UniformSelect(self.seeds)(candidates, _whole(occasion, len(candidates)))
        met = known.aggregated[order] > 0
        explored, fresh = order[met], order[~met]
        drawn = int(generator.binomial(occasion.seats, self._share(occasion.attempt)))
        exploring = min(max(drawn, occasion.seats - len(explored)), len(fresh))
        exploited = self._exploit(known, explored, occasion.seats - exploring, generator)
        chosen = np.concatenate((exploited, fresh[:exploring]))
        rest = order[~np.isin(order, chosen)]
        return np.concatenate((chosen, rest))

    def utility(self, known: Experience, clients: np.ndarray) -> np.ndarray:
        """Return the utility of clients that have an aggregated update, statistical part at most one."""
        rounds = max(len(known.utilities), 1)
        statistical = known.utility(clients)
        statistical = statistical / max(float(statistical.max(initial=0.0)), np.finfo(float).tiny)
        bonus = np.sqrt(0.1 * np.log(rounds) / np.maximum(known.last_round[clients], 1.0))
        durations_s = known.duration_s[clients]
        slow = np.maximum(durations_s / self.preferred_s(known), 1.0)
        utility: np.ndarray = (statistical + bonus) * slow**-self.penalty
        return utility

    def preferred_s(self, known: Experience) -> float:
        """Return the duration up to which a client pays no penalty: the pacer's state."""
        gained = np.add.reduceat(known.utilities, range(0, len(known.utilities), self.window))
        full = gained[: len(known.utilities) // self.window]
        raised = int((full[1:] < full[:-1]).sum())
        percentile = min(self.first_percentile + self.percentile_step * raised, 100.0)
        return float(np.percentile(known.duration_s[known.aggregated > 0], percentile))

    def _share(self, attempt: int) -> float:
        return max(self.exploration * self.exploration_decay**attempt, self.min_exploration)

    def _exploit(
        self, known: Experience, clients: np.ndarray, seats: int, generator: np.random.Generator
    ) -> np.ndarray:
        """Draw clients by utility among those above the cut-off."""
        seats = min(seats, len(clients))
        if seats <= 0:
            return clients[:0]
        utility = self.utility(known, clients)
        bar = self.cut_off * float(np.partition(utility, len(utility) - seats)[len(utility) - seats])
        able = utility >= bar
        chance = np.maximum(utility[able], np.finfo(float).tiny)
        drawn: np.ndarray = generator.choice(
            clients[able], size=seats, replace=False, p=chance / chance.sum()
        )
        return drawn


RULES: Mapping[str, type] = {
    "uniform": UniformSelect,
    "oort": OortSelect,
    "availability_aware": AvailabilityAwareSelect,
    "fastest": FastestSelect,
    "round_robin": RoundRobinSelect,
}


def build_select(name: str, seeds: Seeds) -> Select:
    """Make a rule by its name, one of `RULES`."""
    rule: Select = RULES[name]() if name == "round_robin" else RULES[name](seeds)
    return rule


def _hashes(seeds: Seeds, candidates: np.ndarray, occasion: Occasion) -> np.ndarray:
    return mix(seeds.seed("select", occasion.version, occasion.attempt), candidates)


def _known(experience: Experience, candidates: np.ndarray) -> Experience:
    """Make room for every candidate, so that arrays can be indexed by them."""
    if len(candidates):
        experience.cover(int(candidates.max()))
    return experience


def _whole(occasion: Occasion, count: int) -> Occasion:
    return Occasion(occasion.version, occasion.attempt, occasion.seats, count, occasion.experience)
