"""Does the journal tell the truth? The clock is replayed against it, and a sample is trained again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import IO, NoReturn

from fedsim.errors import FedsimError, InputError
from fedsim.experiment.build import Engine, Experiment, build
from fedsim.experiment.journal import Journal
from fedsim.experiment.journaled import Answer, Journaled
from fedsim.experiment.manifest import known_shape, manifest
from fedsim.experiment.record import EVENTS, MANIFEST, difference, json_line
from fedsim.experiment.resume import check_same, scenario_of
from fedsim.experiment.run import simulate
from fedsim.experiment.verify import Verdict
from fedsim.learn.freeze import freeze
from fedsim.learn.groups import groups
from fedsim.method.bundle import Combined
from fedsim.method.events import Spectrum
from fedsim.method.messages import Evaluation, TrainRequest, Update
from fedsim.seeds import Seeds
from fedsim.sim.server import RealWork


class _EndOfJournalError(FedsimError):
    """An unfinished run got this far; caught in this file."""


async def retrain(directory: Path, count: int, verdict: Verdict) -> None:
    """Replay a run against its record, then train a sample of its updates again; nothing on disk changes.

    Args:
        directory: Of the run.
        count: Updates to train again, at most; drawn among those whose base version is still there.
        verdict: Takes what is found.

    Raises:
        InputError: If the run cannot be replayed here, for instance under other versions of packages.
    """
    experiment = build(scenario_of(directory), known_shape(directory))
    try:
        check_same(directory / MANIFEST, manifest(experiment))
        engine = experiment.engine
        if engine is None:
            await _replay(experiment, directory, verdict)
            verdict.notes.append("nothing was trained, so nothing was trained again")
            return
        start = engine.store.state(0)
        journal = Journal(directory, read_only=True)
        replayed = Replayed(journal, experiment, engine)
        await _replay(replace(experiment, work=RealWork(*[replayed] * 3)), directory, verdict)
        engine.store.put(0, start)
        await _train_sample(replayed, engine, count, verdict)
    finally:
        await experiment.close()


class Replayed(Journaled):
    """Answers from a journal only, and remembers what was asked.

    Args:
        journal: Opened to be read.
        experiment: Whose work it stands for.
        engine: Of the experiment.
    """

    def __init__(self, journal: Journal, experiment: Experiment, engine: Engine) -> None:
        nobody = _Nobody(experiment)
        super().__init__(
            journal, executor=nobody, aggregator=nobody, evaluator=nobody, store=engine.store, keep=1
        )
        self.journal = journal
        self.batch_clients = engine.batch_clients
        self.asked: list[tuple[TrainRequest, list[TrainRequest]]] = []

    async def train(self, requests: Sequence[TrainRequest]) -> list[Answer]:
        """Answer from the journal."""
        for group in groups(requests, self.batch_clients):
            together = [requests[position] for position in group]
            self.asked += [(request, together) for request in together]
        return await super().train(requests)

    def is_repeatable(self, request: TrainRequest, together: Sequence[TrainRequest]) -> bool:
        """Whether an update was kept for it, and all base versions of its group are still there."""
        entry = self.journal.get("update", request.assignment.id)
        has_update = entry is not None and entry.content is not None
        return has_update and all(self._has_version(other.assignment.version) for other in together)

    def _has_version(self, version: int) -> bool:
        state = self.journal.get("state", version)
        return version == 0 or (state is not None and self.journal.has_content(state))

    def restore(self, requests: Sequence[TrainRequest]) -> None:
        """Put the versions that requests start from back into the store."""
        self._restore({request.assignment.version for request in requests})


class _Nobody:
    """Refuses to work: the replay has come to the end of the journal."""

    def __init__(self, experiment: Experiment) -> None:
        self._aggregator = experiment.work.aggregator

    async def train(self, _: Sequence[TrainRequest]) -> NoReturn:
        raise _EndOfJournalError

    async def aggregate(self, _: int, __: Sequence[Update], ___: Sequence[float]) -> Combined:
        raise _EndOfJournalError

    async def evaluate(self, _: int) -> Evaluation:
        raise _EndOfJournalError

    def spectrum(self, version: int) -> Spectrum:
        return self._aggregator.spectrum(version)

    def release(self, version: int) -> None:
        self._aggregator.release(version)


async def _replay(experiment: Experiment, directory: Path, verdict: Verdict) -> None:
    with (directory / EVENTS).open("rb") as file:
        same = _SameRecord(directory / EVENTS, file)
        try:
            await simulate(experiment, [same])
        except _EndOfJournalError:
            verdict.notes.append(f"the journal ends after line {same.number} of the record")
        except InputError as error:
            verdict.add(iter([str(error)]))
    verdict.counts["replayed lines"] = same.number


class _SameRecord:
    """An observer that expects every line to be in the record already."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path = path
        self._file = file
        self.number = 0

    def observe(self, time_s: float, event: str, fields: Mapping[str, object]) -> None:
        line, found = json_line(time_s, event, fields).encode(), self._file.readline()
        if found == line:
            self.number += 1
        elif line.startswith(found):
            raise _EndOfJournalError
        else:
            raise InputError(f"{self._path}:{self.number + 1}: the replay differs; {difference(line, found)}")


async def _train_sample(replayed: Replayed, engine: Engine, count: int, verdict: Verdict) -> None:
    choices = [
        (request, together)
        for request, together in replayed.asked
        if replayed.is_repeatable(request, together)
    ]
    rng = Seeds(len(choices)).generator("retrain")
    chosen = sorted(rng.permutation(len(choices))[:count].tolist())
    for index in chosen:
        request, together = choices[index]
        replayed.restore(together)
        answers = {answer.assignment: answer for answer in await engine.trainer.train(together)}
        verdict.counts["retrained updates"] += 1
        verdict.add(_compare(replayed.journal, request, answers[request.assignment.id]))
    if len(chosen) < count:
        verdict.notes.append(
            f"{len(chosen)} of {count} updates were trained again: the base versions of the others are gone; "
            "set journal.keep to keep more of them"
        )


def _compare(journal: Journal, request: TrainRequest, answer: Answer) -> Iterator[str]:
    number = request.assignment.id
    entry = journal.get("update", number)
    if entry is None or not isinstance(answer, Update) or answer.change is None:
        yield f"journal: update {number}: training it again failed"
        return
    told = {"num_examples": answer.num_examples, "loss": answer.loss}
    if entry.told != told:
        yield f"journal: update {number}: states {entry.told}, trained again it is {told}"
    if entry.content != sha256(freeze(answer.change)).hexdigest():
        yield f"journal: update {number}: trained again, its tensors are others"
