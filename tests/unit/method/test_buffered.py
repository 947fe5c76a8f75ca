"""Buffered, asynchronous and semi-synchronous pacing against what can be computed by hand."""

import math

import numpy as np
import pytest

from fedsim.method.messages import TrainingFailure
from fedsim.method.pacing import BufferedPacing, Mixing, SyncPacing
from fedsim.method.staleness import StalenessRule
from fedsim.seeds import Seeds
from fedsim.sim.stub import StubExecutor
from tests.toyworld import device, play

CONSTANT = Mixing(StalenessRule("constant"))


def outcomes(played):
    return [line["outcome"] for line in played.lines.of("settled")]


class TestClosedForms:
    @pytest.mark.parametrize(("concurrency", "buffer"), [(12, 4), (10, 4), (7, 1), (6, 6), (5, 8)])
    def test_mean_staleness_of_identical_devices(self, concurrency, buffer):
        """Arrivals in even turns: c - 1 others answer between a dispatch and its answer, so (c - 1) / k."""
        duration_s = 120.0
        fleet = [
            device(index, duration_s, online=((index * duration_s / concurrency, math.inf),))
            for index in range(concurrency)
        ]
        pacing = BufferedPacing(concurrency, buffer, mixing=CONSTANT)
        played = play(fleet, pacing, rounds=300)
        seen = [tau for line in played.lines.of("aggregating")[60:] for tau in line["staleness"]]
        # An answer counts from the version after it, unless it completes one: hence c / k - 1 / k.
        assert np.mean(seen) == pytest.approx((concurrency - 1) / buffer, abs=0.03)

    def test_mean_staleness_when_all_answer_at_once(self):
        """C answers at one instant make C / K versions in turn: staleness 0, 1, ... C / K - 1."""
        played = play([device(i, 60.0) for i in range(12)], BufferedPacing(12, 3, mixing=CONSTANT), rounds=40)
        seen = [line["staleness"] for line in played.lines.of("aggregating")]
        assert seen == [[turn % 4] * 3 for turn in range(40)]

    def test_mean_wait_is_that_of_a_queue_with_exponential_service(self):
        """Poisson arrivals, exponential service, c places: Erlang's formula for M/M/c."""
        places, rate, service, count = 3, 0.8, 0.4, 6_000
        draw = np.random.default_rng(11)
        arrivals = np.cumsum(draw.exponential(1 / rate, count))
        durations = draw.exponential(1 / service, count)
        pairs = zip(arrivals.tolist(), durations.tolist(), strict=True)
        fleet = [device(i, d + 1e-5, online=((t, math.inf),)) for i, (t, d) in enumerate(pairs)]
        pacing = BufferedPacing(places, 50, mixing=CONSTANT)
        played = play_queue(fleet, arrivals, pacing)
        waits = [line["time_s"] - arrivals[line["client"]] for line in played.lines.of("dispatched")]
        assert len(waits) == count
        assert np.mean(waits) == pytest.approx(erlang_wait_s(places, rate, service), rel=0.1)


def erlang_wait_s(places, rate, service):
    load = rate / service
    use = load / places
    full = load**places / math.factorial(places) / (1 - use)
    waiting = full / (sum(load**k / math.factorial(k) for k in range(places)) + full)
    return waiting / (places * service - rate)


class OnceEach:
    """First come, first served, once."""

    counts_presence = False

    def __call__(self, candidates, occasion):
        occasion.experience.cover(int(candidates.max()))
        return candidates[occasion.experience.asked[candidates] == 0]


def play_queue(fleet, arrivals, pacing):
    class Queue:
        """A population that answers in constant time: who has arrived is a prefix."""

        num_devices = len(fleet)

        def device(self, index):
            return fleet[index]

        def online(self, t_s):
            there = int(np.searchsorted(arrivals, t_s, side="right"))
            return np.arange(max(0, there - 200), there)

        def next_arrival_s(self, t_s):
            later = int(np.searchsorted(arrivals, t_s, side="right"))
            return float(arrivals[later]) if later < len(arrivals) else math.inf

    return play(Queue(), pacing, select=OnceEach())


class TestEquivalence:
    def test_async_with_one_client_is_sync_with_one_client(self):
        fleet = [device(index, 50.0) for index in range(6)]
        one = play(fleet, SyncPacing(1, 1.0, 1, None), rounds=12)
        other = play(fleet, BufferedPacing(1, 1), rounds=12)

        def facts(played, event, *names):
            return [[line["time_s"], *(line[name] for name in names)] for line in played.lines.of(event)][:12]

        for event, names in {
            "dispatched": ("assignment", "client", "version", "gate", "learning_rate"),
            "aggregating": ("version", "assignments", "weights"),
            "settled": ("assignment", "outcome"),
        }.items():
            assert facts(one, event, *names) == facts(other, event, *names)
        assert [call[2] for call in one.aggregator.calls] == [call[2] for call in other.aggregator.calls]


class TestVersions:
    def test_a_version_is_kept_exactly_as_long_as_somebody_holds_it(self):
        fleet = [device(0, 300.0), *(device(index, 10.0 + index) for index in range(1, 6))]
        played = play(fleet, BufferedPacing(6, 3, mixing=CONSTANT), rounds=60)
        server = played.server
        assert outcomes(played).count("aggregated") == 180
        slow = [line for line in played.lines.of("dispatched") if line["client"] == 0]
        assert len(slow) >= 2  # it came back, and was combined although it had started long ago
        taus = [max(line["staleness"]) for line in played.lines.of("aggregating")]
        assert max(taus) > 10
        assert server.state.spectra.keys() == {server.state.version}
        assert played.aggregator.held == {server.state.version}

    def test_beyond_the_maximum_staleness_an_assignment_ends_at_once(self):
        fleet = [device(0, 1000.0), *(device(index, 10.0 + index) for index in range(1, 6))]
        pacing = BufferedPacing(6, 3, mixing=Mixing(StalenessRule("constant"), max_staleness=2))
        played = play(fleet, pacing, rounds=30)
        assert max(max(line["staleness"]) for line in played.lines.of("aggregating")) <= 2
        dispatched = {line["assignment"]: line for line in played.lines.of("dispatched")}
        stale = [line for line in played.lines.of("settled") if line["outcome"] == "stale"]
        assert stale
        made = {line["version"]: line["time_s"] for line in played.lines.of("aggregated")}
        for line in stale:
            base = dispatched[line["assignment"]]["version"]
            assert line["client"] == 0
            assert line["time_s"] == made[base + 3]  # at the very version that it could not reach any more

    def test_zero_maximum_staleness_leaves_only_the_newest(self):
        fleet = [device(index, 10.0 + index) for index in range(4)]
        pacing = BufferedPacing(4, 1, mixing=Mixing(max_staleness=0))
        played = play(fleet, pacing, rounds=10)
        assert {tau for line in played.lines.of("aggregating") for tau in line["staleness"]} == {0}


class TestWeights:
    def test_staleness_discounts_and_is_not_renormalised(self):
        fleet = [device(0, 100.0), device(1, 30.0)]
        mixing = Mixing(StalenessRule("polynomial", exponent=1.0), server_rate=0.5)
        played = play(fleet, BufferedPacing(2, 1, mixing=mixing), rounds=4)
        for line, (_, _, weights) in zip(
            played.lines.of("aggregating"), played.aggregator.calls, strict=True
        ):
            tau = line["staleness"][0]
            assert line["weights"] == [1.0]
            assert weights == line["discounts"] == [0.5 / (1 + tau)]
        assert [line["staleness"][0] for line in played.lines.of("aggregating")] == [0, 0, 0, 3]

    def test_shares_are_renormalised_over_failures_and_discounts_are_not(self):
        class Fails(StubExecutor):
            async def train(self, requests):
                answers = await super().train(requests)
                return [
                    TrainingFailure(answer.assignment, answer.client, "diverged")
                    if answer.client == 0
                    else answer
                    for answer in answers
                ]

        fleet = [device(index, 20.0) for index in range(3)]
        mixing = Mixing(StalenessRule("constant"), server_rate=0.5)
        played = play(fleet, BufferedPacing(3, 3, mixing=mixing), rounds=1, executor=Fails())
        weights = played.aggregator.calls[0][2]
        assert sum(weights) == pytest.approx(0.5)
        assert sorted(weights) == pytest.approx(sorted([0.5 * 11 / 23, 0.5 * 12 / 23]))
        assert sorted(outcomes(played)) == ["aggregated", "aggregated", "failed"]

    def test_one_executor_call_per_version_in_canonical_order(self):
        asked = []

        class Watches(StubExecutor):
            async def train(self, requests):
                asked.append([request.assignment.id for request in requests])
                return await super().train(requests)

        fleet = [device(index, 90.0 - 10 * index) for index in range(6)]
        played = play(fleet, BufferedPacing(6, 3), rounds=9, executor=Watches())
        assert asked == [line["assignments"] for line in played.lines.of("aggregating")]
        assert all(numbers == sorted(numbers) for numbers in asked)


class TestFilling:
    def test_concurrency_is_kept_and_never_exceeded(self):
        fleet = [device(index, 20.0 + 7 * index) for index in range(20)]
        played = play(fleet, BufferedPacing(8, 4), rounds=50)
        at_work, most, last_s = 0, 0, 0.0
        for line in played.lines.lines:
            if line["time_s"] > last_s > 0 and line["event"] != "stopped":
                assert at_work == 8, f"{at_work} at work until {line['time_s']} s"
            last_s = line["time_s"]
            at_work += (line["event"] == "dispatched") - (line["event"] == "uploaded")
            most = max(most, at_work)
        assert most == 8

    def test_a_client_may_be_asked_again_while_its_update_waits(self):
        played = play([device(0, 20.0)], BufferedPacing(1, 3), rounds=2)
        assert [line["assignments"] for line in played.lines.of("aggregating")] == [[0, 1, 2], [3, 4, 5]]

    def test_nobody_online_is_awaited_without_spinning(self):
        fleet = [device(0, 20.0, online=((500.0, 5000.0),)), device(1, 20.0, online=((800.0, 5000.0),))]
        played = play(fleet, BufferedPacing(4, 2), rounds=3)
        looks = [line["time_s"] for line in played.lines.of("fleet")]
        assert looks[:3] == [0.0, 500.0, pytest.approx(520.0, abs=0.1)]
        assert len(looks) == len(set(looks))

    def test_a_fleet_that_never_comes_ends_the_run(self):
        played = play([device(0, 20.0, online=((100.0, 101.0),))], BufferedPacing(4, 2), rounds=3)
        assert played.reason == "no device will come online any more"
        assert outcomes(played) == ["dropped"]

    def test_who_can_carry_nothing_is_told_once_per_version(self):
        fleet = [device(0, 20.0, memory_bytes=50.0), device(1, 30.0), device(2, 40.0)]
        played = play(fleet, BufferedPacing(3, 2), rounds=6)
        declined = played.lines.of("declined")
        assert {line["client"] for line in declined} == {0}
        assert len(declined) <= 7

    def test_a_deadline_ends_an_assignment_and_frees_its_place(self):
        fleet = [device(0, 1000.0), device(1, 10.0)]
        played = play(fleet, BufferedPacing(2, 1, deadline_s=100.0), rounds=40)
        late = [line for line in played.lines.of("settled") if line["outcome"] == "timed_out"]
        assert {line["client"] for line in late} == {0}
        assert [line["time_s"] for line in late][:3] == [100.0, 200.0, 300.0]


class TestSemiSync:
    def play(self, max_staleness=None, rounds=6):
        fleet = [device(0, 150.0), device(1, 420.0), *(device(index, 40.0) for index in range(2, 8))]
        late = Mixing(StalenessRule("polynomial"), max_staleness)
        return play(fleet, SyncPacing(8, 1.0, 1, 100.0, late=late), rounds=rounds, select=Everybody())

    def test_late_updates_enter_the_next_aggregate_with_their_staleness(self):
        played = self.play(rounds=12)
        dispatched = {line["assignment"]: line for line in played.lines.of("dispatched")}
        late = {}
        for line in played.lines.of("aggregating"):
            for number, tau in zip(line["assignments"], line["staleness"], strict=True):
                if tau:
                    late.setdefault(dispatched[number]["client"], []).append((line["time_s"], tau))
        # Rounds close at 100 s (the deadline), 140 s and 180 s (their last client): 150 s enter the third.
        assert late[0][0] == (pytest.approx(180.0, abs=0.1), 2)
        assert late[1][0][1] >= 4
        assert not {"late", "timed_out", "discarded"} & set(outcomes(played))

    def test_too_late_is_too_late(self):
        played = self.play(max_staleness=2)
        stale = [line for line in played.lines.of("settled") if line["outcome"] == "stale"]
        third = played.lines.of("aggregated")[2]
        assert (stale[0]["client"], stale[0]["time_s"]) == (1, third["time_s"])

    def test_a_round_below_the_minimum_keeps_what_came(self):
        fleet = [device(0, 50.0), device(1, 150.0), device(2, 160.0)]
        late = Mixing(StalenessRule("constant"))
        played = play(fleet, SyncPacing(3, 1.0, 2, 100.0, late=late), rounds=3, select=Everybody())
        closed = [line["result"] for line in played.lines.of("round_closed")]
        assert closed[0] == "discarded"
        assert "discarded" not in outcomes(played)
        first = played.lines.of("aggregating")[0]
        assert 0 in first["assignments"]

    def test_busy_fleet_that_never_leaves_does_not_end_the_run(self):
        fleet = [device(0, 500.0), device(1, 600.0)]
        late = Mixing(StalenessRule("constant"))
        played = play(fleet, SyncPacing(2, 1.0, 1, 100.0, late=late), rounds=5, select=Everybody())
        assert played.reason == "5 rounds are over"


class Everybody:
    counts_presence = False

    def __call__(self, candidates, occasion):
        return candidates


def test_the_same_events_give_the_same_record():
    fleet = [device(index, 20.0 + 3.3 * index) for index in range(15)]
    first, again = (play(fleet, BufferedPacing(9, 4), rounds=40) for _ in range(2))
    assert first.lines.lines == again.lines.lines
    assert Seeds(3).seed("train", 0, 0) == Seeds(3).seed("train", 0, 0)
