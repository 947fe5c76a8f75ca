"""Law 8: whatever the world does, each assignment ends exactly once and the version never falls."""

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fedsim.method import events as ev
from fedsim.method.messages import Evaluation
from tests.fakes import ToyFleet, report
from tests.unit.method.test_server import make_server


class ServerMachine(RuleBasedStateMachine):
    """Plays the world: devices report, drop and answer in any legal order."""

    @initialize(
        cohort=st.integers(1, 4),
        over=st.sampled_from([1.0, 1.5, 3.0]),
        minimum=st.integers(1, 4),
        surplus=st.sampled_from(["recall", "finish"]),
        replan=st.booleans(),
    )
    def start(self, cohort, over, minimum, surplus, replan):
        self.now = 0.0
        self.server = make_server(
            cohort=cohort,
            over=over,
            minimum=min(minimum, cohort),
            surplus=surplus,
            rounds=4,
            deadline_s=50.0,
            replan=replan,
        )
        self.open = {}  # assignment -> phase as the world sees it
        self.settled = {}
        self.version = 0
        self.released = set()
        self.pending = []  # questions the server has asked
        self.stopped = False
        self.tell(ev.Opened(0.0, {}))

    def tell(self, event):
        for action in self.server.handle(event):
            self.take(action)

    def take(self, action):
        if isinstance(action, ev.Dispatch):
            assert action.assignment.id not in self.open | self.settled
            assert action.assignment.version == self.server.state.version
            self.open[action.assignment.id] = "download"
        elif isinstance(action, ev.Settle):
            assert action.assignment not in self.settled, "an assignment ended twice"
            del self.open[action.assignment]
            self.settled[action.assignment] = action.outcome
        elif isinstance(action, ev.Recall):
            assert self.open[action.assignment] != "arrived"
        elif isinstance(action, ev.Release):
            assert action.version not in self.released
            self.released.add(action.version)
        elif isinstance(action, ev.Aggregate | ev.Evaluate | ev.LookAtFleet):
            self.pending.append(action)
        elif isinstance(action, ev.Stop):
            self.stopped = True

    def later(self):
        self.now += 1.0
        return self.now

    def flights(self, *phases):
        return sorted(number for number, phase in self.open.items() if phase in phases)

    def own_report(self, number, **fields):
        return report(self.server.state.flights[number].assignment.client, **fields)

    @precondition(lambda self: not self.stopped and self.pending)
    @rule(data=st.data(), num_devices=st.integers(0, 8), memory=st.sampled_from([50.0, 400.0, 1000.0]))
    def answer(self, data, num_devices, memory):
        question = self.pending.pop(0)
        if isinstance(question, ev.Evaluate):
            self.tell(ev.Evaluated(self.now, Evaluation(question.version, 1.0, 0.5, {})))
        elif isinstance(question, ev.LookAtFleet):
            if self.server.state.stage == "opening":
                fleet = ToyFleet(
                    {client: report(client, memory_bytes=memory) for client in range(num_devices)}
                )
                self.tell(ev.FleetSeen(self.now, fleet))
        else:
            failed = data.draw(st.sets(st.sampled_from(question.assignments)))
            made = len(question.assignments) - len(failed) >= question.minimum
            self.tell(
                ev.Aggregated(
                    self.now,
                    question.version + made,
                    {},
                    {number: 0.1 for number in question.assignments if made and number not in failed},
                    {},
                    dict.fromkeys(failed, "non-finite"),
                )
            )

    @precondition(lambda self: not self.stopped and self.flights("download"))
    @rule(data=st.data(), memory=st.sampled_from([100.0, 400.0, 1000.0]), share=st.floats(0, 1))
    def progress(self, data, memory, share):
        number = data.draw(st.sampled_from(self.flights("download")))
        plan = self.server.state.flights[number].plan
        received = tuple(int(share * total) for total in plan.total)
        size = self.server.config.prices.download_bytes(received)
        self.tell(
            ev.Progressed(self.later(), number, size, received, self.own_report(number, memory_bytes=memory))
        )
        if number in self.server.state.flights:
            kept = self.server.state.flights[number].plan.total
            assert all(have <= now for have, now in zip(received, kept, strict=True))

    @precondition(lambda self: not self.stopped and self.flights("download"))
    @rule(data=st.data(), memory=st.sampled_from([100.0, 400.0, 1000.0]))
    def download(self, data, memory):
        number = data.draw(st.sampled_from(self.flights("download")))
        flight = self.server.state.flights[number]
        size = self.server.config.prices.download_bytes(flight.plan.total)
        self.tell(
            ev.Downloaded(self.later(), number, size, 1.0, self.own_report(number, memory_bytes=memory))
        )
        if number in self.open:
            self.open[number] = "work"
            final = self.server.state.flights[number].plan
            assert self.server.config.prices.memory_bytes(final.total, final.trained) <= memory

    @precondition(lambda self: not self.stopped and self.flights("work"))
    @rule(data=st.data())
    def upload(self, data):
        number = data.draw(st.sampled_from(self.flights("work")))
        self.open[number] = "arrived"
        self.tell(ev.Uploaded(self.later(), number, 10, 1.0))

    @precondition(lambda self: not self.stopped and self.flights("download", "work"))
    @rule(data=st.data())
    def drop(self, data):
        number = data.draw(st.sampled_from(self.flights("download", "work")))
        self.tell(ev.Dropped(self.later(), number, "train", "left"))

    @precondition(lambda self: not self.stopped)
    @rule()
    def deadline(self):
        self.tell(ev.DeadlinePassed(self.later(), self.server.state.round))

    @precondition(lambda self: not self.stopped)
    @rule()
    def time_up(self):
        if self.server.state.round >= 2:
            self.tell(ev.TimeUp(self.later()))

    @precondition(lambda self: self.stopped)
    @rule()
    def nothing_follows_the_end(self):
        assert not self.open

    @invariant()
    def books_agree(self):
        if not hasattr(self, "server"):
            return
        state = self.server.state
        assert set(state.flights) == set(self.open)
        assert state.version >= self.version
        self.version = state.version
        assert all(state.version - flight.assignment.version >= 0 for flight in state.flights.values())
        assert set(state.spectra) == set(range(state.version + 1)) - self.released
        if self.stopped:
            assert not self.open
            assert len(self.settled) == state.next_assignment


ServerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestServerLaws = ServerMachine.TestCase
