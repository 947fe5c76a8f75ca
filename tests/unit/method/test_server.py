"""The server: rounds, budgets and outcomes, without a clock."""

import numpy as np
import pytest

from fedsim.errors import ProtocolError
from fedsim.method import events as ev
from fedsim.method.estimate import RateRule
from fedsim.method.messages import Evaluation
from fedsim.method.pacing import SyncPacing
from fedsim.method.select import UniformSelect
from fedsim.method.server import Server, ServerConfig, StopRule
from fedsim.seeds import Seeds
from tests.fakes import ToyFleet, ToyMethod, report, toy_prices


def make_server(*, cohort=2, over=1.5, minimum=1, deadline_s=100.0, surplus="recall", rounds=2, **changes):
    settings = {
        "method": ToyMethod(),
        "pacing": SyncPacing(cohort, over, minimum, deadline_s, surplus),
        "select": UniformSelect(Seeds(1)),
        "prices": toy_prices(),
        "rates": RateRule("harmonic", default_bps=(80.0, 80.0)),
        "seeds": Seeds(1),
        "steps": 3,
        "learning_rate": lambda version: 0.1 / (1 + version),
        "download_window_s": 10.0,
        "replan": True,
        "replan_threshold": 0.2,
        "evaluate_every": 1,
        "stop": StopRule(rounds=rounds),
    }
    return Server(ServerConfig(**(settings | changes)))


def of_type(actions, kind):
    return [action for action in actions if isinstance(action, kind)]


def open_round(server, num_devices=3, now_s=0.0, **report_fields):
    server.handle(ev.Opened(0.0, {}))
    server.handle(ev.Evaluated(0.0, Evaluation(0, 1.0, 0.5, {})))
    fleet = ToyFleet({client: report(client, **report_fields) for client in range(num_devices)})
    return server.handle(ev.FleetSeen(now_s, fleet))


def downloaded(server, number, now_s=5.0, **report_fields):
    flight = server.state.flights[number]
    size = server.config.prices.download_bytes(flight.plan.total)
    own = report(flight.assignment.client, **report_fields)
    return server.handle(ev.Downloaded(now_s, number, size, 5.0, own))


def uploaded(server, number, now_s=10.0):
    return server.handle(ev.Uploaded(now_s, number, 10, 5.0))


def answer(server, action, now_s=10.0, failed=None):
    made = len(action.assignments) - len(failed or {}) >= action.minimum
    version = action.version + 1 if made else action.version
    good = {number: 0.5 for number in action.assignments if number not in (failed or {})}
    return server.handle(ev.Aggregated(now_s, version, {}, good if made else {}, {}, failed or {}))


class TestOpening:
    def test_measures_the_base_before_anything_else(self):
        assert make_server().handle(ev.Opened(0.0, {})) == (ev.Evaluate(0),)

    def test_asks_cohort_times_over_selection(self):
        dispatched = of_type(open_round(make_server(), num_devices=5), ev.Dispatch)
        assert len(dispatched) == 3
        assert len({action.assignment.client for action in dispatched}) == 3

    def test_plans_the_whole_cohort_in_one_call(self):
        """And, where some cannot take part, those asked in their place in one more."""
        asked = []

        class Counted(ToyMethod):
            def allocate(self, spectrum, budgets, prices, fresh_rank, standings=None):
                asked.append(len(budgets))
                return super().allocate(spectrum, budgets, prices, fresh_rank, standings)

        open_round(make_server(cohort=8, over=1.25, method=Counted()), num_devices=30)
        assert asked == [10]
        asked.clear()
        open_round(make_server(cohort=8, method=Counted()), num_devices=30, memory_bytes=1.0)
        assert asked[0] == 12
        assert sum(asked) == 30
        assert len(asked) == 3

    def test_sets_the_deadline_once(self):
        assert of_type(open_round(make_server(), now_s=7.0), ev.SetDeadline) == [ev.SetDeadline(0, 107.0)]

    def test_budget_comes_from_estimate_and_report(self):
        dispatch = of_type(open_round(make_server()), ev.Dispatch)[0]
        assert dispatch.budget.download_bytes == pytest.approx(80.0 * 10.0 / 8.0)
        assert dispatch.budget.memory_bytes == 1000.0
        assert dispatch.assignment.offered.total == (5, 5)

    def test_declines_a_device_that_cannot_hold_the_base(self):
        server = make_server()
        actions = open_round(server, memory_bytes=50.0)
        assert {action.client for action in of_type(actions, ev.Decline)} == {0, 1, 2}
        assert actions[-1] == ev.LookAtFleet(None)
        assert not server.state.flights

    def test_waits_when_too_few_are_online(self):
        assert open_round(make_server(minimum=2), num_devices=1) == (ev.LookAtFleet(None),)

    def test_another_seed_asks_others(self):
        first = of_type(open_round(make_server(), num_devices=50), ev.Dispatch)
        other = of_type(open_round(make_server(select=UniformSelect(Seeds(2))), num_devices=50), ev.Dispatch)
        assert {a.assignment.client for a in first} != {a.assignment.client for a in other}


class TestClosing:
    def test_quorum_recalls_the_surplus_and_weighs_by_examples(self):
        server = make_server()
        open_round(server)
        for number in (0, 1):
            downloaded(server, number)
        assert uploaded(server, 0) == ()
        actions = uploaded(server, 1)
        assert of_type(actions, ev.Settle) == [ev.Settle(2, "cancelled", None, "surplus: the quorum is full")]
        aggregate = of_type(actions, ev.Aggregate)[0]
        assert aggregate.assignments == (0, 1)
        assert sum(aggregate.weights) == pytest.approx(1.0)

    def test_surplus_may_finish_and_is_late(self):
        server = make_server(surplus="finish")
        open_round(server)
        for number in (0, 1, 2):
            downloaded(server, number)
        uploaded(server, 0)
        answer(server, of_type(uploaded(server, 1), ev.Aggregate)[0])
        late = uploaded(server, 2, now_s=12.0)
        assert [action.outcome for action in of_type(late, ev.Settle)] == ["late"]

    def test_deadline_times_out_whoever_is_at_work(self):
        server = make_server()
        open_round(server)
        downloaded(server, 0)
        uploaded(server, 0)
        actions = server.handle(ev.DeadlinePassed(100.0, 0))
        assert [action.outcome for action in of_type(actions, ev.Settle)] == ["timed_out", "timed_out"]
        assert of_type(actions, ev.Aggregate)[0].assignments == (0,)

    def test_round_below_its_minimum_leaves_the_model_unchanged(self):
        server = make_server(minimum=2)
        open_round(server)
        downloaded(server, 0)
        uploaded(server, 0)
        actions = server.handle(ev.DeadlinePassed(100.0, 0))
        outcomes = {action.assignment: action.outcome for action in of_type(actions, ev.Settle)}
        assert outcomes == {0: "discarded", 1: "timed_out", 2: "timed_out"}
        assert of_type(actions, ev.CloseRound) == [ev.CloseRound(0, 0, "discarded")]
        assert server.state.version == 0

    def test_failed_training_below_the_minimum_discards_the_rest(self):
        server = make_server(minimum=2)
        open_round(server)
        for number in (0, 1):
            downloaded(server, number)
        uploaded(server, 0)
        aggregate = of_type(uploaded(server, 1), ev.Aggregate)[0]
        actions = answer(server, aggregate, failed={1: "non-finite"})
        outcomes = {action.assignment: action.outcome for action in of_type(actions, ev.Settle)}
        assert outcomes == {0: "discarded", 1: "failed"}
        assert server.state.version == 0

    def test_new_version_releases_the_old_one_and_remembers_who_took_part(self):
        server = make_server()
        open_round(server)
        for number in (0, 1):
            downloaded(server, number)
        clients = {n: server.state.flights[n].assignment.client for n in (0, 1)}
        uploaded(server, 0)
        actions = answer(server, of_type(uploaded(server, 1), ev.Aggregate)[0])
        assert of_type(actions, ev.Release) == [ev.Release(0)]
        assert set(server.state.memory) == set(clients.values())
        assert actions[-1] == ev.Evaluate(1)

    def test_time_up_cancels_everything_and_measures_the_last_version(self):
        server = make_server()
        open_round(server)
        actions = server.handle(ev.TimeUp(50.0))
        assert [action.outcome for action in of_type(actions, ev.Settle)] == ["cancelled"] * 3
        assert actions[-1] == ev.Stop("virtual time is over at 50 s")

    def test_target_loss_stops_the_run(self):
        server = make_server(stop=StopRule(rounds=9, target_loss=2.0))
        server.handle(ev.Opened(0.0, {}))
        actions = server.handle(ev.Evaluated(0.0, Evaluation(0, 1.5, 0.5, {})))
        assert actions == (ev.Stop("the loss reached its target of 2"),)


class TestReplanning:
    def test_slow_progress_shrinks_the_plan_but_keeps_what_has_come(self):
        server = make_server()
        open_round(server)
        seen = ev.Progressed(5.0, 0, 25, (2, 1), report(server.state.flights[0].assignment.client))
        actions = of_type(server.handle(seen), ev.Replan)
        assert actions[0].old.total == (5, 5)
        assert actions[0].new.total == (2, 2)
        assert actions[0].reason == "bandwidth"

    def test_steady_progress_changes_nothing(self):
        server = make_server()
        open_round(server)
        assert server.handle(ev.Progressed(5.0, 0, 50, (3, 2), report(0))) == ()

    def test_off_means_off(self):
        server = make_server(replan=False)
        open_round(server)
        assert server.handle(ev.Progressed(5.0, 0, 5, (1, 0), report(0, memory_bytes=100.0))) == ()

    def test_memory_that_no_longer_holds_the_received_columns_drops_the_assignment(self):
        server = make_server()
        open_round(server)
        actions = server.handle(ev.Progressed(5.0, 0, 50, (3, 2), report(0, memory_bytes=100.0)))
        assert of_type(actions, ev.Recall) == [ev.Recall(0)]
        assert of_type(actions, ev.Settle) == [ev.Settle(0, "dropped", "download", "infeasible: memory")]

    def test_final_plan_fits_the_memory_of_the_moment(self):
        server = make_server()
        open_round(server)
        actions = downloaded(server, 0, memory_bytes=320.0)
        plan = of_type(actions, ev.Replan)[0].new
        assert plan.total == (5, 5)
        assert server.config.prices.memory_bytes(plan.total, plan.trained) <= 320.0


class TestEstimates:
    def test_cut_transfer_teaches_the_rate(self):
        server = make_server()
        server.handle(ev.Opened(0.0, {}))
        server.handle(ev.TransferCut(1.0, 0, "download", 5, 10.0))
        server.handle(ev.Evaluated(1.0, Evaluation(0, 1.0, 0.5, {})))
        actions = server.handle(ev.FleetSeen(1.0, ToyFleet({0: report(0)})))
        assert of_type(actions, ev.Dispatch) == []  # 4 bit/s for 10 s carry no column
        assert of_type(actions, ev.Decline)[0].reason == "infeasible: no column"


class TestProtocol:
    @pytest.mark.parametrize(
        "event", [ev.Uploaded(1.0, 0, 1, 1.0), ev.Uploaded(1.0, 99, 1, 1.0), ev.Evaluated(0.0, None)]
    )
    def test_illegal_events_are_bugs(self, event):
        server = make_server()
        open_round(server)
        with pytest.raises(ProtocolError):
            server.handle(event)

    def test_nothing_may_follow_the_end(self):
        server = make_server()
        open_round(server)
        server.handle(ev.TimeUp(50.0))
        with pytest.raises(ProtocolError, match="after the run has stopped"):
            server.handle(ev.TimeUp(51.0))


def test_no_deadline_means_a_budget_of_seconds_that_never_binds():
    server = make_server(deadline_s=None)
    dispatch = of_type(open_round(server), ev.Dispatch)[0]
    assert np.isinf(dispatch.assignment.deadline_at_s)
    assert dispatch.budget.seconds == 1e12
