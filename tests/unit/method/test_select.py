"""Selection rules: who is asked, and what each may know."""

import numpy as np
import pytest

from fedsim.method.experience import Experience
from fedsim.method.select import RULES, Occasion, OortSelect, UniformSelect, build_select
from fedsim.seeds import Seeds

CLIENTS = np.arange(0, 400, 3, dtype=np.int64)


def occasion(experience=None, *, attempt=0, seats=4, wanted=8, version=0):
    return Occasion(version, attempt, seats, wanted, experience or Experience())


def taught(**clients):
    """Experience with c5=(loss, examples, duration_s) and so on."""
    experience = Experience()
    for name, (loss, examples, duration_s) in clients.items():
        client = int(name[1:])
        experience.ask(client)
        experience.learn(client, round_number=1, loss=loss, examples=examples, duration_s=duration_s)
    experience.close_round(np.array(sorted(int(name[1:]) for name in clients)))
    return experience


@pytest.mark.parametrize("name", sorted(RULES))
class TestEveryRule:
    def test_orders_candidates_without_repeating_any(self, name):
        order = build_select(name, Seeds(1))(CLIENTS, occasion(wanted=len(CLIENTS)))
        assert sorted(order) == CLIENTS.tolist()

    def test_is_a_pure_function(self, name):
        rule = build_select(name, Seeds(1))
        experience = taught(c3=(1.0, 10, 60.0), c6=(2.0, 10, 90.0))
        first, again = (rule(CLIENTS, occasion(experience)) for _ in range(2))
        assert first.tolist() == again.tolist()

    def test_takes_an_empty_fleet(self, name):
        assert len(build_select(name, Seeds(1))(CLIENTS[:0], occasion())) == 0

    def test_does_not_change_what_it_knows(self, name):
        experience = taught(c3=(1.0, 10, 60.0))
        build_select(name, Seeds(1))(CLIENTS, occasion(experience))
        assert experience.asked.sum() == 1
        assert experience.aggregated.sum() == 1


class TestUniform:
    def test_a_short_order_is_the_beginning_of_the_long_one(self):
        rule = UniformSelect(Seeds(2))
        whole = rule(CLIENTS, occasion(wanted=len(CLIENTS)))
        for wanted in (1, 7, 20, 100):
            short = rule(CLIENTS, occasion(wanted=wanted))
            assert len(short) >= min(wanted, len(CLIENTS))
            assert short.tolist() == whole[: len(short)].tolist()

    def test_who_else_is_online_does_not_matter(self):
        rule = UniformSelect(Seeds(2))
        some = rule(CLIENTS[::2], occasion(wanted=400))
        whole = rule(CLIENTS, occasion(wanted=400))
        assert some.tolist() == [client for client in whole if client in set(some)]

    def test_everybody_is_equally_likely(self):
        rule = UniformSelect(Seeds(2))
        firsts = np.concatenate([rule(CLIENTS, occasion(attempt=k))[:4] for k in range(2000)])
        counts = np.unique(firsts, return_counts=True)[1]
        assert len(counts) == len(CLIENTS)
        assert counts.max() < 2 * counts.mean()


def test_round_robin_gives_everybody_a_turn():
    rule, experience = build_select("round_robin", Seeds(0)), Experience()
    turns = []
    for _ in range(6):
        chosen = rule(np.arange(9), occasion(experience, seats=3))[:3]
        for client in chosen:
            experience.ask(int(client))
        turns += chosen.tolist()
    assert turns == [*range(9), *range(9)]


def test_fastest_takes_the_unknown_between_the_fast_and_the_slow():
    experience = taught(c0=(1.0, 1, 10.0), c1=(1.0, 1, 20.0), c2=(1.0, 1, 30.0), c3=(1.0, 1, 40.0))
    order = build_select("fastest", Seeds(0))(np.arange(6), occasion(experience, wanted=6)).tolist()
    assert order[:2] == [0, 1]
    assert set(order[2:4]) == {4, 5}
    assert order[4:] == [2, 3]


def test_availability_aware_prefers_rare_visitors():
    experience = Experience()
    for turn in range(10):
        experience.look(np.array([0, 1] if turn % 2 else [0]), np.array([3]))
    experience.look(np.array([0, 1, 2]), np.array([3]))
    order = build_select("availability_aware", Seeds(0))(np.arange(4), occasion(experience, wanted=4))
    assert order.tolist()[:2] == [2, 1]
    assert set(order.tolist()[2:]) == {0, 3}


class TestOort:
    def known(self, **changes):
        known = {f"c{k}": (1.0, 10, 60.0) for k in range(20)}
        return taught(**(known | changes))

    def test_utility_is_examples_times_loss_and_falls_for_the_slow(self):
        rule = OortSelect(Seeds(0), penalty=2.0)
        experience = self.known(c1=(3.0, 10, 60.0), c2=(3.0, 10, 600.0))
        utility = rule.utility(experience, np.arange(20))
        assert rule.preferred_s(experience) == 60.0
        assert utility[1] == 1.0
        assert utility[0] == pytest.approx(1 / 3)
        assert utility[2] == pytest.approx(0.01)

    def test_exploits_the_useful_and_not_the_slow(self):
        rule = OortSelect(Seeds(0), exploration=0.0, min_exploration=0.0)
        experience = self.known(c1=(9.0, 10, 60.0), c2=(9.0, 10, 60.0), c3=(9.0, 10, 6000.0))
        for attempt in range(5):
            order = rule(np.arange(40), occasion(experience, attempt=attempt, seats=2))
            assert set(order[:2].tolist()) == {1, 2}

    def test_explores_at_first_and_less_later(self):
        rule, experience = OortSelect(Seeds(0)), self.known()

        def share(attempts):
            new = [
                (rule(np.arange(60), occasion(experience, attempt=k, seats=10))[:10] >= 20).mean()
                for k in attempts
            ]
            return np.mean(new)

        assert share(range(30)) > 0.6
        assert share(range(400, 430)) == pytest.approx(0.2, abs=0.1)

    def test_one_seat_explores_by_chance(self):
        rule, experience = OortSelect(Seeds(0), exploration=0.5, exploration_decay=1.0), self.known()
        firsts = [rule(np.arange(60), occasion(experience, attempt=k, seats=1))[0] for k in range(200)]
        assert 0.35 < np.mean(np.array(firsts) >= 20) < 0.65

    def test_a_client_long_not_heard_of_gets_a_bonus(self):
        rule, experience = OortSelect(Seeds(0)), self.known()
        for turn in range(2, 60):
            experience.learn(0, round_number=turn, loss=1.0, examples=10, duration_s=60.0)
            experience.close_round(np.array([0]))
        utility = rule.utility(experience, np.arange(20))
        assert utility[1] > utility[0]

    def test_pacer_lets_slower_clients_in_when_utility_falls(self):
        rule = OortSelect(Seeds(0), window=2, first_percentile=10.0, percentile_step=50.0)
        experience = Experience()
        for client in range(11):
            experience.learn(client, round_number=1, loss=1.0, examples=1, duration_s=10.0 * client)
        experience.utilities = [5.0, 5.0]
        before = rule.preferred_s(experience)
        experience.utilities += [1.0]
        assert rule.preferred_s(experience) == before == 10.0
        experience.utilities += [1.0]
        assert rule.preferred_s(experience) == 60.0

    def test_memory_comes_from_aggregated_updates_only(self):
        experience = Experience()
        for client in range(30):
            experience.ask(client)
        rule = OortSelect(Seeds(0), exploration=0.0, min_exploration=0.0)
        plain = UniformSelect(Seeds(0))(np.arange(30), occasion(experience, wanted=30))
        assert rule(np.arange(30), occasion(experience)).tolist() == plain.tolist()
