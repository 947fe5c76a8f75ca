"""Who serves whom: calls overlap, answers keep their order, one failure ends all."""

import asyncio
import threading

import pytest

from fedsim.errors import ModelError
from fedsim.learn.executors.pool import Pool
from fedsim.method.messages import Assignment, RankPlan, TrainRequest


def request(number):
    plan = RankPlan((1,), (1,))
    return TrainRequest(Assignment(number, number, 0, plan, 1, 0, 1.0, 0.1, 0.0, float("inf")), plan)


def pool(size, serve, stop=lambda: None, batch_clients=1):
    return Pool(size, batch_clients, serve, stop)


async def test_two_calls_share_the_places():
    both = threading.Barrier(2, timeout=10)

    def serve(place, requests):
        both.wait()  # passes only if two places are at work at once
        return [(place, asked.assignment.id) for asked in requests]

    spread = pool(2, serve)
    one, two = await asyncio.gather(spread.train([request(1)]), spread.train([request(2)]))
    assert [one[0][1], two[0][1]] == [1, 2]
    assert {one[0][0], two[0][0]} == {0, 1}
    spread.close()


async def test_answers_keep_the_order_of_requests_and_groups_stay_whole():
    served = []

    def serve(_, requests):
        served.append([asked.assignment.id for asked in requests])
        return [asked.assignment.id for asked in requests]

    spread = pool(1, serve, batch_clients=2)
    assert await spread.train([request(number) for number in (5, 3, 9, 1)]) == [5, 3, 9, 1]
    assert sorted(map(len, served)) == [2, 2]
    assert await spread.train([]) == []
    spread.close()


async def test_a_failure_stops_what_is_under_way_and_names_itself():
    stopped = threading.Event()

    def serve(place, _):
        if place == 0:
            raise ModelError("no such model")
        stopped.wait(10)
        return [None]

    spread = pool(2, serve, stopped.set)
    with pytest.raises(ModelError, match="no such model"):
        await spread.train([request(1), request(2)])
    assert stopped.is_set()
    spread.close()
