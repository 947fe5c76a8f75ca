"""The embedded language: wide and free, or settled by a house."""

import random
from collections import Counter

import pytest

from fedsim.learn.embedded import lexicon
from fedsim.learn.embedded.grammar import FIRST_RARE, NUM_HOUSES, NUM_PHRASES, World, phrase, wide_example

WORLD = World.build(0)


def test_the_same_seed_says_the_same():
    first = [wide_example(random.Random(5)) for _ in range(3)]
    assert first == [wide_example(random.Random(5)) for _ in range(3)]
    assert WORLD == World.build(0) != World.build(1)


def test_every_slot_has_all_its_phrases():
    assert {len(phrases) for phrases in (*lexicon.PHRASES.values(), *lexicon.FAMILY.values())} == {
        NUM_PHRASES
    }


def test_wide_language_uses_every_phrase_and_the_rare_half_seldom():
    rng = random.Random(0)
    texts = " ".join(wide_example(rng).target for _ in range(4000))
    for phrases in lexicon.PHRASES.values():
        for text in phrases:
            assert text.split("{v}")[0] in texts
    counts = Counter({text: texts.count(text) for text in lexicon.FAMILY["no"]})
    rare = sum(counts[text] for text in lexicon.FAMILY["no"][FIRST_RARE:])
    assert 0.02 < rare / counts.total() < 0.12


def test_houses_speak_rare_phrases_and_share_three_quarters_of_them():
    pairs = [(slot, value) for slot, values in lexicon.VALUES.items() for value in values]
    spoken = {pair: [WORLD.phrase_index(house, *pair) for house in range(NUM_HOUSES)] for pair in pairs}
    assert all(FIRST_RARE <= index < NUM_PHRASES for row in spoken.values() for index in row)
    shared = sum(len(set(row)) == 1 for row in spoken.values()) / len(pairs)
    assert 0.6 < shared < 0.9


def test_a_house_says_a_meaning_in_one_way_only():
    rng = random.Random(3)
    for _ in range(200):
        example = WORLD.example(2, rng)
        slots = dict(part.rstrip("]").split("[") for part in example.prompt.removesuffix(" => ").split(", "))
        assert slots.pop("house") == "h2"
        assert slots["name"] in example.target
        slots.pop("name")
        dish = slots.pop("dish", None)
        for slot, value in slots.items():
            assert phrase(slot, value, WORLD.phrase_index(2, slot, value)) in example.target
        if dish:
            assert dict(WORLD.codes)[dish] in example.target


def test_houses_own_different_codes():
    rng = random.Random(4)
    codes = {
        house: {
            e.prompt.split("dish[")[1]
            for e in (WORLD.example(house, rng) for _ in range(80))
            if "dish[" in e.prompt
        }
        for house in (0, 1)
    }
    assert codes[0]
    assert codes[1]
    assert not codes[0] & codes[1]


@pytest.mark.parametrize("percent", [0, 100])
def test_personal_share_can_be_nothing_or_all(percent):
    world = World.build(0, personal_percent=percent)
    rows = [
        tuple(world.phrase_index(house, "food", food) for food in lexicon.VALUES["food"])
        for house in range(NUM_HOUSES)
    ]
    assert (len(set(rows)) == 1) == (percent == 0)
