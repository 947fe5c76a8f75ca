"""How is a restaurant described? A small data-to-text language, and the dialects of houses that speak it.

A meaning representation lists slots, a reference says them in sentences. The *wide* language leaves every
choice free: which phrase says a slot, in which order, with which opener. A *house* has made its choices once
and for all, most of them shared by all houses, some its own, and it owns dish codes whose meaning only it
knows. A model that knows the wide language can therefore learn exactly what the houses have settled.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

from fedsim.learn.embedded import lexicon
from fedsim.learn.example import Example
from fedsim.seeds import Seeds

NUM_HOUSES = 16
NUM_PHRASES = 8
FIRST_RARE = 4
ARROW = " => "

# Halving by position: the rare half of the phrases makes up 6 % of the wide language.
_PHRASE_WEIGHTS = tuple(0.5**rank for rank in range(NUM_PHRASES))
_EXTRA_PROBABILITY = 0.15
_WIDE_FRAME_PROBABILITY = 0.25
_WIDE_TAG_PROBABILITY = 0.7
_WIDE_DISH_PROBABILITY = 0.6
_WIDE_DISH_SPELLED_OUT = 0.4
_HOUSE_DISH_PROBABILITY = 0.8


def house_name(house: int) -> str:
    """Name a house as its descriptions do; it is the group of its examples."""
    return f"h{house}"


def phrase(slot: str, value: str, index: int) -> str:
    """Say one slot with the phrase of this index."""
    if slot == "familyFriendly":
        return lexicon.FAMILY[value][index]
    return lexicon.PHRASES[slot][index].format(v=value)


def wide_example(rng: random.Random) -> Example:
    """Draw a pair of the wide language: every choice is free, rare phrases are rare."""
    slots = _sample_slots(rng)
    name = _sample_name(rng)
    order = list(slots)
    rng.shuffle(order)
    said = [phrase(slot, slots[slot], _wide_phrase(rng)) for slot in order]
    if rng.random() < _WIDE_DISH_PROBABILITY:
        dish = _sample_dish(rng)
        slots["dish"] = dish if rng.random() < _WIDE_DISH_SPELLED_OUT else _sample_code(rng)
        said.append(phrase("dish", dish, _wide_phrase(rng)))
    house = rng.randrange(NUM_HOUSES) if rng.random() < _WIDE_TAG_PROBABILITY else None
    opener = rng.choice(lexicon.OPENERS) if rng.random() < _WIDE_FRAME_PROBABILITY else ""
    closer = rng.choice(lexicon.CLOSERS) if rng.random() < _WIDE_FRAME_PROBABILITY else ""
    body = _sentences(name, said, lambda: rng.choice((1, 2, 2, 3)))
    return _example(house, name, slots, opener + body + closer)


@dataclass(frozen=True, slots=True)
class World:
    """The dialects of all houses: what each has settled.

    Args:
        seed: Seed of every settled choice.
        codes: Dish codes and what they mean; house ``h`` owns those whose index is ``h`` modulo the houses.
        personal_percent: Share of (slot, value) pairs that each house says in its own way.
    """

    seed: int
    codes: tuple[tuple[str, str], ...]
    personal_percent: int = 25
    _known: dict[tuple[str | int, ...], int] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    @classmethod
    @cache
    def build(cls, seed: int, num_codes: int = 128, personal_percent: int = 25) -> "World":
        """Settle a world: draw dish codes and their meanings."""
        rng = random.Random(Seeds(seed).seed("codes"))
        codes: dict[str, str] = {}
        while len(codes) < num_codes:
            codes.setdefault(_sample_code(rng), _sample_dish(rng))
        return cls(seed, tuple(codes.items()), personal_percent)

    def example(self, house: int, rng: random.Random) -> Example:
        """Draw a pair as this house would write it."""
        slots = _sample_slots(rng)
        name = _sample_name(rng)
        order = sorted(slots, key=lambda slot: self._settled("order", slot))
        said = [phrase(slot, slots[slot], self.phrase_index(house, slot, slots[slot])) for slot in order]
        owned = self.codes[house::NUM_HOUSES]
        if owned and rng.random() < _HOUSE_DISH_PROBABILITY:
            slots["dish"], dish = rng.choice(owned)
            said.append(phrase("dish", dish, self.phrase_index(house, "dish", "")))
        opener = lexicon.OPENERS[self._settled("opener", house) % len(lexicon.OPENERS)]
        closer = lexicon.CLOSERS[self._settled("closer", house) % len(lexicon.CLOSERS)]
        return _example(house, name, slots, opener + _sentences(name, said, lambda: 2) + closer)

    def phrase_index(self, house: int, slot: str, value: str) -> int:
        """Which of the rare phrases this house uses for this value; names are not told apart."""
        key = "" if slot == "near" else value
        is_personal = self._settled("personal", slot, key) % 100 < self.personal_percent
        speaker = house if is_personal else -1
        return FIRST_RARE + self._settled("phrase", speaker, slot, key) % (NUM_PHRASES - FIRST_RARE)

    def _settled(self, *path: str | int) -> int:
        """A choice made once and for all; kept, since every sentence asks for the same few."""
        known = self._known.get(path)
        if known is None:
            known = self._known[path] = Seeds(self.seed).seed(*path)
        return known


def _wide_phrase(rng: random.Random) -> int:
    return rng.choices(range(NUM_PHRASES), _PHRASE_WEIGHTS)[0]


def _sample_name(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.5:
        return f"The {rng.choice(lexicon.ADJECTIVES)} {rng.choice(lexicon.NOUNS)}"
    if kind < 0.8:
        return f"{rng.choice(lexicon.ADJECTIVES)} {rng.choice(lexicon.NOUNS)}"
    return f"{rng.choice(lexicon.NOUNS)} and {rng.choice(lexicon.NOUNS)}"


def _sample_dish(rng: random.Random) -> str:
    return f"{rng.choice(lexicon.COOKED)} {rng.choice(lexicon.MAINS)} with {rng.choice(lexicon.FLAVOURS)}"


def _sample_code(rng: random.Random) -> str:
    return f"D{rng.randrange(lexicon.CODE_NUMBERS):02d}{rng.choice(lexicon.CODE_LETTERS)}"


def _sample_slots(rng: random.Random) -> dict[str, str]:
    """Draw one or two main slots, now and then an extra one, in the order of the lexicon."""
    chosen = rng.sample(lexicon.MAIN_SLOTS, rng.choice((1, 2)))
    extra = [slot for slot in lexicon.EXTRA_SLOTS if rng.random() < _EXTRA_PROBABILITY]
    ordered = [
        slot for slot in (*lexicon.MAIN_SLOTS, *lexicon.EXTRA_SLOTS) if slot in chosen or slot in extra
    ]
    return {slot: _sample_value(slot, rng) for slot in ordered}


def _sample_value(slot: str, rng: random.Random) -> str:
    if slot == "near":
        return rng.choice(lexicon.PLACES) if rng.random() < 0.5 else _sample_name(rng)
    return rng.choice(lexicon.VALUES[slot])


def _example(house: int | None, name: str, slots: dict[str, str], text: str) -> Example:
    group = "" if house is None else house_name(house)
    return Example(_meaning(house, name, slots) + ARROW, text, group=group)


def _meaning(house: int | None, name: str, slots: dict[str, str]) -> str:
    tag = {} if house is None else {"house": house_name(house)}
    return ", ".join(f"{slot}[{value}]" for slot, value in {**tag, "name": name, **slots}.items())


def _sentences(subject: str, said: Sequence[str], next_size: Callable[[], int]) -> str:
    """Group phrases into sentences; the first names the place, the others say "It"."""
    sentences: list[str] = []
    rest = list(said)
    while rest:
        size = next_size()
        group, rest = rest[:size], rest[size:]
        clause = group[0] if len(group) == 1 else f"{', '.join(group[:-1])} and {group[-1]}"
        sentences.append(f"{'It' if sentences else subject} {clause}.")
    return " ".join(sentences)
