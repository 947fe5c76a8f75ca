"""A version is measured while the next one is trained, and the record does not show it."""

import asyncio
from dataclasses import dataclass, field

import pytest

from fedsim.errors import TrainingError
from fedsim.method.messages import Evaluation
from fedsim.method.pacing import SyncPacing
from fedsim.sim.driver_config import DriverConfig
from fedsim.sim.recording import Scribe
from fedsim.sim.stub import StubExecutor
from tests.toyworld import Lines, device, play

PACING = SyncPacing(2, 1.0, 1, None)


@dataclass
class Waiting:
    """Executor and evaluator: a version below the last is measured only once the next cohort trains."""

    last: int
    patient: bool = True
    trains: asyncio.Event = field(default_factory=asyncio.Event)
    order: list = field(default_factory=list)

    async def train(self, requests):
        self.order.append("train")
        self.trains.set()
        await asyncio.sleep(0)
        return await StubExecutor().train(requests)

    async def evaluate(self, version):
        if self.patient and version < self.last:
            self.trains.clear()
            await asyncio.wait_for(self.trains.wait(), 20.0)
        self.order.append(f"measured {version}")
        return Evaluation(version, 1.0 / (1 + version), 0.5, {"rouge_l": 0.25})


def run(*, aside, work, horizon_s=None):
    config = DriverConfig("drop", 60.0, horizon_s, measures_aside=aside)
    return play([device(0, 5.0), device(1, 7.0)], PACING, rounds=3, work=work, config=config)


def test_the_next_cohort_trains_meanwhile_and_the_record_is_the_same():
    work = Waiting(last=3)
    overlapped = run(aside=True, work=work)
    plain = run(aside=False, work=Waiting(last=3, patient=False))
    assert work.order == [
        *("train", "measured 0"),
        *("train", "measured 1"),
        *("train", "measured 2"),
        "measured 3",
    ]
    assert overlapped.lines.lines == plain.lines.lines
    assert [line["version"] for line in overlapped.lines.of("evaluated")] == [0, 1, 2, 3]
    assert overlapped.lines.lines[-1]["event"] == "stopped"
    assert overlapped.reason == plain.reason


def test_a_run_that_stops_before_the_next_version_still_tells_of_its_measurement():
    """Nobody is back when virtual time is over."""
    played = [
        run(aside=aside, work=Waiting(last=0, patient=False), horizon_s=3.0).lines.lines for aside in (1, 0)
    ]
    assert played[0] == played[1]
    assert [line["event"] for line in played[0]].index("evaluated") == 0


@pytest.mark.parametrize("last", [0, 3])
def test_a_measurement_that_fails_ends_the_run_and_leaves_the_record_before_it(last):
    class Failing(Waiting):
        async def evaluate(self, version):
            if version == last:
                raise TrainingError("the loss is no number")
            return await super().evaluate(version)

    lines = []
    for aside in (True, False):
        kept = Lines()
        with pytest.raises(TrainingError, match="no number"):
            play(
                [device(0, 5.0), device(1, 7.0)],
                PACING,
                rounds=3,
                work=Failing(last, patient=False),
                config=DriverConfig("drop", 60.0, None, measures_aside=aside),
                lines=kept,
            )
        lines.append(kept.lines)
    assert lines[0] == lines[1]


def test_lines_wait_for_the_one_before_them():
    """What is on disk after a kill is therefore a beginning of the record, whole."""
    seen = Lines()
    scribe = Scribe([seen])
    scribe.fleet_seen(1.0, 2, 0)
    scribe.keep_place(2.0)
    scribe.fleet_seen(3.0, 2, 0)
    assert [line["time_s"] for line in seen.lines] == [1.0]
    scribe.fill_place(Evaluation(0, 1.5, 0.5, {}))
    scribe.fleet_seen(4.0, 2, 0)
    assert [line["time_s"] for line in seen.lines] == [1.0, 2.0, 3.0, 4.0]
    assert seen.lines[1] == {
        "time_s": 2.0,
        "event": "evaluated",
        "version": 0,
        "loss": 1.5,
        "token_accuracy": 0.5,
    }
