"""Plans that follow their clients: streams, parts of updates, memory that falls away; no clock."""

import pytest

from fedsim.method import events as ev
from tests.fakes import ToyFleet, report
from tests.unit.method.test_server import downloaded, make_server, of_type, open_round, uploaded


def client_of(server, number):
    return server.state.flights[number].assignment.client


def closed(server, number, received, now_s=10.0, **fields):
    """The stream of one client is over: these columns have come whole."""
    size = server.config.prices.download_bytes(received)
    own = report(client_of(server, number), **fields)
    return server.handle(ev.Downloaded(now_s, number, size + 3, now_s, own, received))


class TestStreams:
    def test_a_stream_is_not_limited_by_what_the_server_guesses(self):
        planned, streamed = make_server(), make_server(progressive=True)
        fixed = of_type(open_round(planned), ev.Dispatch)[0]
        flowing = of_type(open_round(streamed), ev.Dispatch)[0]
        assert fixed.stream is None
        assert fixed.assignment.offered.total == (5, 5)  # 80 bit/s for 10 s are 100 bytes
        assert flowing.assignment.offered.total == (8, 8)
        assert flowing.stream.layers == (0, 1) * 8

    def test_it_closes_with_the_window_or_at_half_of_what_the_base_leaves(self):
        dispatch = of_type(open_round(make_server(progressive=True)), ev.Dispatch)[0]
        assert dispatch.stream.closes_at_s == 10.0
        assert dispatch.budget.seconds == pytest.approx(90.0)
        hurried = make_server(progressive=True, deadline_s=11.0)
        dispatch = of_type(open_round(hurried), ev.Dispatch)[0]
        assert dispatch.stream.closes_at_s == pytest.approx(5.0)  # the base takes one second of eleven
        assert dispatch.budget.seconds == pytest.approx(6.0)
        endless = of_type(open_round(make_server(progressive=True, deadline_s=None)), ev.Dispatch)[0]
        assert endless.stream.closes_at_s == 10.0

    def test_the_client_trains_with_what_has_come(self):
        server = make_server(progressive=True)
        open_round(server)
        (replan,) = of_type(closed(server, 0, (3, 2)), ev.Replan)
        assert replan.new.total == (3, 2)
        assert replan.reason == "window"
        assert replan.received == (3, 2)
        assert replan.ahead.download_bytes == 0.0
        assert replan.ahead.seconds == 90.0
        assert server.state.flights[0].plan == replan.new
        assert server.state.flights[0].status == "working"

    def test_less_memory_at_the_end_of_the_window_trains_less(self):
        server = make_server(progressive=True)
        open_round(server)
        (replan,) = of_type(closed(server, 0, (4, 4), memory_bytes=250.0), ev.Replan)
        assert replan.new.total == (4, 4)
        assert server.config.prices.memory_bytes((4, 4), replan.new.trained) <= 250.0

    def test_what_has_come_is_lost_where_it_does_not_fit_any_more(self):
        server = make_server(progressive=True)
        open_round(server)
        actions = closed(server, 0, (8, 8), memory_bytes=120.0)
        assert of_type(actions, ev.Settle) == [ev.Settle(0, "dropped", "download", "infeasible: memory")]

    def test_a_link_that_slows_down_changes_nothing_and_memory_does(self):
        server = make_server(progressive=True)
        open_round(server)
        number = client_of(server, 0)
        assert server.handle(ev.Progressed(5.0, 0, 1, (1, 0), report(number))) == ()
        less = ev.Progressed(6.0, 0, 20, (1, 1), report(number, memory_bytes=300.0))
        (replan,) = of_type(server.handle(less), ev.Replan)
        assert replan.reason == "memory"
        assert replan.stream.closes_at_s == 10.0
        assert replan.stream.layers == (0, 1) * replan.new.total[0]


class TestTogether:
    def test_clients_whose_budgets_moved_at_one_instant_are_planned_in_one_call(self):
        calls = []
        server = make_server()
        method = server.config.method

        class Counting(type(method)):
            def replan(self, spectrum, budgets, *rest, **more):
                calls.append(len(budgets))
                return super().replan(spectrum, budgets, *rest, **more)

        object.__setattr__(server.config, "method", Counting())
        open_round(server)
        reports = tuple(
            ev.Progressed(5.0, number, 25, (2, 1), report(client_of(server, number))) for number in range(3)
        )
        replans = of_type(server.handle(ev.Reported(5.0, reports)), ev.Replan)
        assert calls == [3]
        assert [replan.assignment for replan in replans] == [0, 1, 2]
        alone = make_server()
        open_round(alone)
        assert [of_type(alone.handle(one), ev.Replan)[0].new for one in reports] == [r.new for r in replans]


class TestMemoryUnderTraining:
    def test_the_steps_begin_again_with_fewer_trained_columns(self):
        server = make_server()
        open_round(server)
        downloaded(server, 0)
        old = server.state.flights[0].plan
        own = report(client_of(server, 0), memory_bytes=300.0)
        (replan,) = of_type(server.handle(ev.MemoryFell(20.0, 0, own)), ev.Replan)
        assert replan.reason == "memory"
        assert replan.new.total == old.total
        assert sum(replan.new.trained) < sum(old.trained)
        assert server.config.prices.memory_bytes(replan.new.total, replan.new.trained) <= 300.0

    def test_no_plan_at_all_ends_it(self):
        server = make_server()
        open_round(server)
        downloaded(server, 0)
        own = report(client_of(server, 0), memory_bytes=120.0)
        actions = server.handle(ev.MemoryFell(20.0, 0, own))
        assert of_type(actions, ev.Settle) == [ev.Settle(0, "dropped", "train", "infeasible: memory")]


class TestPartsOfUpdates:
    def test_who_leaves_while_uploading_has_delivered_what_came(self):
        server = make_server(partial_upload=True)
        open_round(server)
        downloaded(server, 0)
        actions = server.handle(ev.Dropped(20.0, 0, "upload", "the device left", 25))
        assert actions == (ev.TakePart(0, "the device left"),)
        assert list(server.state.arrived) == [0]

    @pytest.mark.parametrize(
        ("phase", "size", "partial"), [("upload", 9, True), ("train", 0, True), ("upload", 25, False)]
    )
    def test_less_than_a_column_is_nothing(self, phase, size, partial):
        server = make_server(partial_upload=partial)
        open_round(server)
        downloaded(server, 0)
        actions = server.handle(ev.Dropped(20.0, 0, phase, "the device left", size))
        assert of_type(actions, ev.Settle)[0].outcome == "dropped"

    def test_a_deadline_takes_what_has_come(self):
        server = make_server(partial_upload=True)
        open_round(server)
        for number in (0, 1):
            downloaded(server, number)
        actions = server.handle(ev.DeadlinePassed(100.0, 0, {0: 25, 1: 4}))
        assert of_type(actions, ev.TakePart) == [ev.TakePart(0, "deadline")]
        assert {a.assignment: a.outcome for a in of_type(actions, ev.Settle)} == {
            1: "timed_out",
            2: "timed_out",
        }
        assert of_type(actions, ev.Aggregate)[0].assignments == (0,)

    def test_a_round_that_has_closed_takes_nothing(self):
        server = make_server(partial_upload=True, surplus="finish")
        open_round(server)
        for number in (0, 1, 2):
            downloaded(server, number)
        uploaded(server, 0)
        uploaded(server, 1)
        actions = server.handle(ev.DeadlinePassed(100.0, 0, {2: 25}))
        assert of_type(actions, ev.Settle) == [ev.Settle(2, "timed_out", None, "deadline")]


class TestMargin:
    def test_plans_leave_a_share_of_window_and_deadline_unused(self):
        careful = of_type(open_round(make_server(safety_margin=0.4)), ev.Dispatch)[0]
        assert careful.budget.seconds == pytest.approx(60.0)
        assert careful.budget.download_bytes == pytest.approx(60.0)
        assert careful.assignment.offered.total == (3, 3)
        assert careful.assignment.deadline_at_s == 100.0

    def test_a_stream_closes_with_its_window_and_leaves_time_before_the_deadline(self):
        careful = of_type(open_round(make_server(safety_margin=0.4, progressive=True)), ev.Dispatch)[0]
        assert careful.stream.closes_at_s == 10.0
        assert careful.budget.seconds == pytest.approx(50.0)

    def test_so_does_a_plan_that_is_made_again(self):
        server = make_server(safety_margin=0.4)
        open_round(server)
        seen = ev.Progressed(5.0, 0, 25, (2, 1), report(client_of(server, 0)))
        (replan,) = of_type(server.handle(seen), ev.Replan)
        assert replan.ahead.seconds == pytest.approx(54.0)  # one more for the column under way


class TestDeclined:
    def test_a_device_too_small_for_the_base_is_asked_again_only_when_it_has_grown(self):
        server = make_server()
        fleet = open_round(server, num_devices=2, memory_bytes=50.0)
        # the toy method knows no base, so nothing is remembered of it
        assert len(of_type(fleet, ev.Decline)) == 2
        assert not server.state.unfit

    def test_what_is_remembered_spares_pricing_and_a_line(self):
        server = make_server()
        open_round(server, num_devices=2, memory_bytes=50.0)
        server.state.unfit = {0: report(0, memory_bytes=50.0)}
        server.state.declined = set()
        actions = server.handle(
            ev.FleetSeen(5.0, ToyFleet({0: report(0, memory_bytes=50.0), 1: report(1, memory_bytes=50.0)}))
        )
        assert [action.client for action in of_type(actions, ev.Decline)] == [1]
        grown = ToyFleet({0: report(0, memory_bytes=900.0)})
        assert [
            a.assignment.client for a in of_type(server.handle(ev.FleetSeen(6.0, grown)), ev.Dispatch)
        ] == [0]
