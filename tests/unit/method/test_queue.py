"""In which order clients are asked: the whole list of a small fleet, draws from a large one."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest

from fedsim.method.experience import Experience
from fedsim.method.queue import LARGE_FLEET, Queue
from fedsim.method.select import Occasion, RoundRobinSelect, UniformSelect
from fedsim.seeds import Seeds, mix, mix_one

LARGE = 10 * LARGE_FLEET


class Fleet:
    """Counts how often it must list everybody."""

    def __init__(self, num_devices, idle):
        self.num_devices, self.idle, self.lists = num_devices, set(idle), 0

    def online(self):
        self.lists += 1
        return np.array(sorted(self.idle), dtype=np.int64)

    def is_idle(self, client):
        return client in self.idle


def queue(fleet, rule=None, attempt=0, skip=frozenset(), seats=4):
    rule = rule or UniformSelect(Seeds(0))
    draw = rule if hasattr(rule, "draw") else None
    return Queue(fleet, rule, draw, Occasion(0, attempt, seats, 2 * seats, Experience()), skip)


@pytest.mark.parametrize("num_devices", [60, LARGE])
def test_everybody_who_is_there_comes_once_and_nobody_else(num_devices):
    idle = range(0, num_devices, num_devices // 60)
    fleet = Fleet(num_devices, idle)
    asked = queue(fleet, skip=frozenset({0})).next(1000)
    assert sorted(asked) == sorted(set(idle) - {0})


def test_a_few_places_of_a_large_fleet_need_no_list():
    fleet = Fleet(LARGE, range(0, LARGE, 5))
    assert len(queue(fleet).next(4)) == 4
    assert fleet.lists == 0


def test_a_rule_that_cannot_draw_lists():
    fleet = Fleet(LARGE, range(100))
    assert queue(fleet, RoundRobinSelect()).next(3) == [0, 1, 2]
    assert fleet.lists == 1


def test_draws_are_the_same_again_and_others_at_another_look():
    fleet = Fleet(LARGE, range(0, LARGE, 3))
    assert queue(fleet).next(8) == queue(fleet).next(8)
    assert queue(fleet).next(8) != queue(fleet, attempt=1).next(8)


def test_draws_are_uniform():
    rule = UniformSelect(Seeds(1))
    occasion = Occasion(0, 0, 1, 2, Experience())
    counts = Counter(client * 10 // LARGE for client in islice(rule.draw(LARGE, occasion), 20_000))
    expected = 2_000.0
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < 27.9  # 0.1 %, 9 degrees
    assert set(counts) == set(range(10))


def test_one_hash_is_that_of_the_array():
    values = np.array([0, 1, 77, 2**40], dtype=np.int64)
    assert [mix_one(2**62 + 5, int(value)) for value in values] == mix(2**62 + 5, values).tolist()
