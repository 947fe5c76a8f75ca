"""Law 8: whatever the world does, each assignment ends exactly once, and versions live as long as holders."""

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fedsim.method import events as ev
from fedsim.method.messages import Evaluation
from fedsim.method.pacing import BufferedPacing, Mixing, SyncPacing
from fedsim.method.staleness import StalenessRule
from tests.fakes import ToyFleet, report
from tests.unit.method.test_server import make_server


class ServerMachine(RuleBasedStateMachine):
    """Plays the world: devices report, drop and answer in any legal order."""

    def pacing(self, draw):
        """The pacing under test; subclasses have others."""
        cohort = draw(st.integers(1, 4))
        over = draw(st.sampled_from([1.0, 1.5, 3.0]))
        minimum = min(draw(st.integers(1, 4)), cohort)
        return SyncPacing(cohort, over, minimum, 50.0, draw(st.sampled_from(["recall", "finish"])))

    @initialize(data=st.data(), replan=st.booleans(), streams=st.booleans(), partial=st.booleans())
    def start(self, data, replan, streams, partial):
        self.now = 0.0
        self.rule = self.pacing(data.draw)
        self.streams = streams
        self.server = make_server(
            pacing=self.rule,
            rounds=4,
            replan=replan,
            progressive=streams,
            partial_upload=partial,
            safety_margin=data.draw(st.sampled_from([0.0, 0.2])),
        )
        self.looks = []
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
        elif isinstance(action, ev.TakePart):
            assert self.open[action.assignment] == "work"
            self.open[action.assignment] = "arrived"
        elif isinstance(action, ev.Release):
            assert action.version not in self.released
            self.released.add(action.version)
        elif isinstance(action, ev.Stop):
            self.stopped = True
        else:
            self.keep(action)

    def keep(self, action):
        """Remember what the server wants to know."""
        if isinstance(action, ev.LookAtFleet):
            self.looks.append(action)
        elif isinstance(action, ev.Evaluate):
            self.pending.append(action)
        elif isinstance(action, ev.Aggregate):
            self.check_aggregate(action)
            self.pending.append(action)

    def check_aggregate(self, action):
        """Every update is there once, has come, and starts from a version that is still kept."""
        flights = [self.server.state.flights[number] for number in action.assignments]
        assert list(action.assignments) == sorted(set(action.assignments))
        assert {self.open[number] for number in action.assignments} == {"arrived"}
        assert not {flight.assignment.version for flight in flights} & self.released
        assert abs(sum(action.weights) - 1.0) < 1e-9
        mixing = self.rule.mixing
        if mixing is None:
            assert action.staleness == action.discounts == ()
            assert {flight.assignment.version for flight in flights} == {action.version}
            return
        taus = tuple(action.version - flight.assignment.version for flight in flights)
        assert action.staleness == taus
        assert action.discounts == tuple(mixing.discount(tau) for tau in taus)
        assert mixing.max_staleness is None or max(taus) <= mixing.max_staleness

    def later(self):
        """Let time pass, unless a look at this very instant is under way."""
        if all(look.at_s is None for look in self.looks):
            self.now += 1.0
        return self.now

    def flights(self, *phases):
        return sorted(number for number, phase in self.open.items() if phase in phases)

    def own_report(self, number, **fields):
        return report(self.server.state.flights[number].assignment.client, **fields)

    @precondition(lambda self: not self.stopped and self.pending)
    @rule(data=st.data())
    def answer(self, data):
        question = self.pending.pop(0)
        if isinstance(question, ev.Evaluate):
            self.tell(ev.Evaluated(self.now, Evaluation(question.version, 1.0, 0.5, {})))
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

    @precondition(lambda self: not self.stopped and self.looks)
    @rule(data=st.data(), num_devices=st.integers(0, 8), memory=st.sampled_from([50.0, 400.0, 1000.0]))
    def see(self, data, num_devices, memory):
        question = self.looks.pop(data.draw(st.integers(0, len(self.looks) - 1)))
        if not self.server.listens_to("FleetSeen"):
            return
        if question.at_s is None:
            if num_devices == 0:
                self.tell(ev.FleetGone(self.now))
                return
            self.later()
        busy = {
            flight.assignment.client
            for flight in self.server.state.flights.values()
            if flight.status != "arrived"
        }
        idle = [client for client in range(num_devices) if client not in busy]
        self.tell(
            ev.FleetSeen(self.now, ToyFleet({client: report(client, memory_bytes=memory) for client in idle}))
        )

    @precondition(lambda self: not self.stopped and self.flights("download"))
    @rule(data=st.data(), memory=st.sampled_from([100.0, 400.0, 1000.0]), share=st.floats(0, 1))
    def progress(self, data, memory, share):
        number = data.draw(st.sampled_from(self.flights("download")))
        plan = self.server.state.flights[number].plan
        received = tuple(int(share * total) for total in plan.total)
        size = self.server.config.prices.download_bytes(received)
        own = self.own_report(number, memory_bytes=memory)
        one = ev.Progressed(self.later(), number, size, received, own)
        others = [other for other in self.flights("download") if other != number][
            : data.draw(st.integers(0, 2))
        ]
        nothing = (0,) * len(plan.total)
        more = [ev.Progressed(self.now, n, 0, nothing, self.own_report(n)) for n in others]
        self.tell(ev.Reported(self.now, (one, *more)) if more else one)
        if number in self.server.state.flights:
            kept = self.server.state.flights[number].plan.total
            assert all(have <= now for have, now in zip(received, kept, strict=True))

    @precondition(lambda self: not self.stopped and self.flights("download"))
    @rule(data=st.data(), memory=st.sampled_from([100.0, 400.0, 1000.0]))
    def download(self, data, memory):
        number = data.draw(st.sampled_from(self.flights("download")))
        plan, received = self.server.state.flights[number].plan, None
        if self.streams:
            share = data.draw(st.floats(0.1, 1))
            received = tuple(max(1, int(share * total)) for total in plan.total)
        size = self.server.config.prices.download_bytes(received or plan.total)
        own = self.own_report(number, memory_bytes=memory)
        self.tell(ev.Downloaded(self.later(), number, size, 1.0, own, received))
        if number in self.open:
            self.open[number] = "work"
            final = self.server.state.flights[number].plan
            assert received in (None, final.total)
            assert self.server.config.prices.memory_bytes(final.total, final.trained) <= memory

    @precondition(lambda self: not self.stopped and self.flights("work"))
    @rule(data=st.data(), memory=st.sampled_from([150.0, 250.0]))
    def squeeze(self, data, memory):
        """A client that trains lacks memory, and may go on with fewer columns."""
        number = data.draw(st.sampled_from(self.flights("work")))
        plan = self.server.state.flights[number].plan
        if self.server.config.prices.memory_bytes(plan.total, plan.trained) <= memory:
            return
        self.tell(ev.MemoryFell(self.later(), number, self.own_report(number, memory_bytes=memory)))
        if number in self.open:
            final = self.server.state.flights[number].plan
            assert final.total == plan.total
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
        phase = data.draw(st.sampled_from(["train", "upload"])) if self.open[number] == "work" else "download"
        size = data.draw(st.sampled_from([0, 9, 10, 40])) if phase == "upload" else 0
        self.tell(ev.Dropped(self.later(), number, phase, "left", size))
        usable = self.server.config.partial_upload and size >= 10
        assert (self.settled.get(number) == "dropped") is not usable

    @precondition(lambda self: not self.stopped)
    @rule(data=st.data())
    def deadline(self, data):
        newest = max(self.server.state.round, self.server.state.next_wave)
        sent = {number: data.draw(st.sampled_from([0, 9, 10, 40])) for number in self.flights("work")}
        self.tell(ev.DeadlinePassed(self.later(), data.draw(st.integers(0, newest)), sent))

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
        held = {flight.assignment.version for flight in state.flights.values()}
        assert set(state.spectra) == held | {state.version} if state.stage != "new" else True
        assert set(state.spectra) == set(range(state.version + 1)) - self.released
        assert state.at_work == len(self.flights("download", "work"))
        assert list(state.flights) == sorted(state.flights)
        self.check_pace(state)
        if self.stopped:
            assert not self.open
            assert len(self.settled) == state.next_assignment

    def check_pace(self, state):
        """What else this pacing promises."""


class BufferedMachine(ServerMachine):
    """The same world without rounds."""

    def pacing(self, draw):
        size = draw(st.integers(1, 4))
        mixing = Mixing(
            StalenessRule(draw(st.sampled_from(["constant", "polynomial", "hinge"]))),
            draw(st.sampled_from([None, 0, 1, 3])),
            draw(st.sampled_from([1.0, 0.5])),
        )
        deadline_s = draw(st.sampled_from([None, 50.0]))
        return BufferedPacing(draw(st.integers(1, 6)), size, draw(st.integers(1, size)), deadline_s, mixing)

    def check_pace(self, state):
        assert state.at_work <= self.rule.concurrency
        clients = [
            flight.assignment.client for flight in state.flights.values() if flight.status != "arrived"
        ]
        assert len(clients) == len(set(clients))
        limit = self.rule.mixing.max_staleness
        if limit is not None:
            ages = [state.version - flight.assignment.version for flight in state.flights.values()]
            assert max(ages, default=0) <= limit
        if state.stage == "collecting" and state.at_work < self.rule.concurrency:
            assert self.looks or state.at_work, "a place is free and nobody looks"
        assert len([look for look in self.looks if look.at_s is None]) <= 1


class SemiSyncMachine(ServerMachine):
    """The same world with rounds whose late updates count later."""

    def pacing(self, draw):
        cohort = draw(st.integers(1, 4))
        return SyncPacing(
            cohort,
            draw(st.sampled_from([1.0, 2.0])),
            draw(st.integers(1, cohort)),
            50.0,
            late=Mixing(StalenessRule("polynomial"), draw(st.sampled_from([None, 0, 2]))),
        )

    def check_pace(self, state):
        assert not {"late", "timed_out"} & set(self.settled.values())
        if state.stage == "opening":
            assert self.looks or state.at_work


for machine in (ServerMachine, BufferedMachine, SemiSyncMachine):
    machine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestServerLaws = ServerMachine.TestCase
TestBufferedLaws = BufferedMachine.TestCase
TestSemiSyncLaws = SemiSyncMachine.TestCase
