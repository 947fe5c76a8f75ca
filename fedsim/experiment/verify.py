"""Does a run tell the truth? Every hash, every law of the record and every budget, checked once more.

The record is read line by line, so it may be long. Nothing here imports torch; `fedsim.experiment.retrain`
goes further and does a sample of the work again.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args

from fedsim.errors import InputError
from fedsim.experiment.journal_index import INDEX, JOURNAL, OBJECTS, SUFFIX, read_index
from fedsim.experiment.load import prices_of, read_events, read_json, reading, refuse_thin
from fedsim.experiment.record import EVENTS, MANIFEST, SUMMARY, Tally, json_line
from fedsim.experiment.seal import broken_seals, file_hash
from fedsim.experiment.utilisation import used_budget
from fedsim.method.events import Outcome
from fedsim.method.messages import RankPlan
from fedsim.world.cost import Prices

MAX_FINDINGS = 50
ROUNDING = 1e-9
OUTCOMES = frozenset(get_args(Outcome))
_ORDER = {"dispatched": 0, "downloaded": 1, "training_started": 2, "trained": 3, "uploaded": 4}


@dataclass(slots=True)
class Verdict:
    """What was found.

    Args:
        findings: What is wrong, one line each; at most `MAX_FINDINGS`.
        notes: What could not be checked, and why.
        counts: What was checked, and how many of it.
    """

    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, findings: Iterator[str]) -> None:
        """Take findings, up to the limit."""
        for finding in findings:
            if len(self.findings) >= MAX_FINDINGS:
                self.notes.append(f"stopped after {MAX_FINDINGS} findings")
                return
            self.findings.append(finding)


def verify(directory: Path) -> Verdict:
    """Check a run: hashes of all files, laws of the record, budgets recomputed from plans and prices.

    Args:
        directory: Of the run; it may be unfinished.

    Raises:
        InputError: If it is not the directory of a run, or so damaged that nothing can be said.
    """
    with reading(directory):
        return _verified(directory)


def _verified(directory: Path) -> Verdict:
    verdict = Verdict()
    manifest = read_json(directory / MANIFEST)
    refuse_thin(directory, manifest)
    summary = None
    if (directory / SUMMARY).exists():
        summary = read_json(directory / SUMMARY)
        verdict.add(broken_seals(directory, (directory / SUMMARY).read_text(encoding="utf-8"), summary))
        verdict.counts["files"] = len(summary.get("files") or {})
    else:
        verdict.notes.append("the run is not finished: its files are not sealed yet")
    verdict.add(_journal_findings(directory, verdict.counts))
    prices = prices_of(manifest)
    if prices is None:
        verdict.notes.append("the manifest tells no prices: budgets were not checked")
    audit = Audit(prices)
    verdict.add(_record_findings(directory, audit, summary))
    verdict.counts.update(audit.counts)
    return verdict


def _journal_findings(directory: Path, counts: Counter[str]) -> Iterator[str]:
    """Yield what is wrong with the journal: its chain of hashes, and the content of its files."""
    journal = directory / JOURNAL
    if not journal.exists():
        return
    try:
        index = read_index(journal / INDEX)
    except InputError as error:
        yield str(error)
        return
    needed = index.live()
    present = {path.name for path in (journal / OBJECTS).glob("*")}
    for content, holders in sorted(needed.items()):
        name = f"{content}{SUFFIX}"
        kind, number = min(holders)
        counts["journal files"] += 1
        if name not in present:
            yield f"{JOURNAL}/{OBJECTS}/{name}: missing; it holds {kind} {number}"
        elif not _holds(journal / OBJECTS / name, content):
            yield f"{JOURNAL}/{OBJECTS}/{name}: damaged; it holds {kind} {number}"
    for name in sorted(present - {f"{content}{SUFFIX}" for content in needed}):
        yield f"{JOURNAL}/{OBJECTS}/{name}: the index does not know it"


def _holds(path: Path, content: str) -> bool:
    """Whether a file has the content that it is named after; a folder in its place has not."""
    return path.is_file() and file_hash(path) == content


def _record_findings(directory: Path, audit: "Audit", summary: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield what is wrong with the record itself."""
    digest, number = sha256(), 0
    try:
        for number, line in enumerate(read_events(directory / EVENTS), start=1):
            fields = {key: value for key, value in line.items() if key not in ("time_s", "event")}
            digest.update(json_line(line["time_s"], line["event"], fields).encode())
            for finding in audit.observe(line["time_s"], line["event"], fields):
                yield f"{EVENTS}:{number}: {finding}"
    except InputError as error:
        yield str(error)
        return
    except (KeyError, TypeError, ValueError, IndexError) as error:
        yield f"{EVENTS}:{number}: expected a line as fedsim writes it, found another ({error!r})"
        return
    if summary is not None:
        yield from audit.conclude()
        if summary.get("record_sha256") != digest.hexdigest():
            yield f"{EVENTS}: its hash is not the one in the summary"
        yield from _sum_findings(audit.tally, summary)


def _sum_findings(tally: Tally, summary: Mapping[str, Any]) -> Iterator[str]:
    for key, found in (
        ("rounds", tally.rounds),
        ("outcomes", dict(tally.outcomes)),
        ("bytes_down", tally.bytes_down),
        ("bytes_up", tally.bytes_up),
        ("aggregated_by_class", dict(tally.by_class)),
    ):
        if summary.get(key) != found:
            yield f"{SUMMARY}: {key}: states {summary.get(key)}, the record says {found}"


@dataclass(slots=True)
class _Flight:
    """An assignment that has not ended."""

    client: int
    budget: Mapping[str, float]
    stage: int = 0
    received: tuple[int, ...] | None = None
    plan: RankPlan | None = None
    bytes_down: int | None = None
    unused_bytes: int = 0
    is_shrunk: bool = False
    bytes_up: int | None = None


@dataclass(slots=True)
class Audit:
    """Holds a record to its laws, line by line; remembers assignments in flight only.

    Args:
        prices: Of one assignment; None where they are not known.
    """

    prices: Prices | None
    tally: Tally = field(default_factory=Tally)
    counts: Counter[str] = field(default_factory=Counter)
    _now_s: float = 0.0
    _next: int = 0
    _plans: dict[int, RankPlan] = field(default_factory=dict)
    _flights: dict[int, _Flight] = field(default_factory=dict)
    _busy: set[int] = field(default_factory=set)
    _combining: set[int] = field(default_factory=set)
    _stopped: bool = False

    def observe(self, time_s: float, event: str, fields: Mapping[str, Any]) -> Iterator[str]:
        """Yield which laws a line breaks."""
        self.counts["lines"] += 1
        if not time_s >= self._now_s:
            yield f"time falls from {self._now_s!r} s to {time_s!r} s"
        self._now_s = time_s
        if self._stopped:
            yield "the record goes on after its end"
        self.tally.observe(time_s, event, fields)
        if "duration_s" in fields and not fields["duration_s"] > 0:
            yield f"{event} took {fields['duration_s']!r} s"
        rule = self._rules().get(event)
        if rule is not None:
            yield from rule(fields)
        if event in _ORDER and event != "dispatched":
            yield from self._phase(event, fields)

    def conclude(self) -> Iterator[str]:
        """Yield what is missing at the end of a finished record."""
        for number in self._flights:
            yield f"{EVENTS}: assignment {number} never ends"
        if not self._stopped:
            yield f"{EVENTS}: the run is finished, and the record has no end"

    def _rules(self) -> dict[str, Callable[[Mapping[str, Any]], Iterator[str]]]:
        return {
            "plan": self._plan,
            "dispatched": self._dispatched,
            "replanned": self._replanned,
            "training_started": self._training_started,
            "downloaded": self._downloaded,
            "uploaded": self._uploaded,
            "aggregating": self._aggregating,
            "settled": self._settled,
            "stopped": self._stop,
        }

    def _stop(self, _: Mapping[str, Any]) -> Iterator[str]:
        self._stopped = True
        yield from ()

    def _plan(self, fields: Mapping[str, Any]) -> Iterator[str]:
        if fields["plan"] != len(self._plans):
            yield f"plan {fields['plan']} comes after {len(self._plans)} plans"
        merged = tuple(fields.get("merged", ()))
        self._plans[fields["plan"]] = RankPlan(tuple(fields["total"]), tuple(fields["trained"]), merged)

    def _dispatched(self, fields: Mapping[str, Any]) -> Iterator[str]:
        number = fields["assignment"]
        self.counts["assignments"] += 1
        if number != self._next:
            yield f"assignment {number} is dispatched, expected {self._next}"
        self._next = number + 1
        if fields["client"] in self._busy:
            yield f"client {fields['client']} is dispatched while it is at work"
        self._busy.add(fields["client"])
        flight = _Flight(fields["client"], fields["budget"])
        self._flights[number] = flight
        yield from self._within(number, flight, self._plans[fields["plan"]])

    def _replanned(self, fields: Mapping[str, Any]) -> Iterator[str]:
        flight = self._flights[fields["assignment"]]
        flight.budget = {**fields["budget"], **fields["ahead"]}
        flight.received = tuple(fields["received"])
        flight.is_shrunk = flight.stage == _ORDER["training_started"]
        yield from self._within(fields["assignment"], flight, self._plans[fields["new_plan"]])

    def _training_started(self, fields: Mapping[str, Any]) -> Iterator[str]:
        flight = self._flights[fields["assignment"]]
        flight.plan = self._plans[fields["plan"]]
        yield from self._within(fields["assignment"], flight, flight.plan)
        used = None if flight.bytes_down is None else flight.bytes_down - flight.unused_bytes
        if self.prices is not None and used != self.prices.bytes_down(flight.plan):
            yield (
                f"assignment {fields['assignment']} received {used} bytes that are of use, "
                f"its plan costs {self.prices.bytes_down(flight.plan)}"
            )

    def _within(self, number: int, flight: _Flight, plan: RankPlan) -> Iterator[str]:
        """Compare what a plan costs with its budget; after a re-plan, with what was to come."""
        if self.prices is None:
            return
        self.counts["budgets"] += 1
        for name, used in used_budget(self.prices, plan, flight.budget, flight.received).items():
            if used > flight.budget[name] * (1.0 + ROUNDING):
                yield f"assignment {number} costs {used:g} {name}, its budget has {flight.budget[name]:g}"

    def _downloaded(self, fields: Mapping[str, Any]) -> Iterator[str]:
        flight, unused = self._flights[fields["assignment"]], fields.get("unused_bytes", 0)
        flight.bytes_down, flight.unused_bytes = fields["bytes"], unused
        if self.prices is not None and not 0 <= unused < max(self.prices.down_bytes.max(), 1):
            yield f"assignment {fields['assignment']} was cut {unused} bytes into a column"

    def _uploaded(self, fields: Mapping[str, Any]) -> Iterator[str]:
        flight = self._flights[fields["assignment"]]
        flight.bytes_up = fields["bytes"]
        self._busy.discard(flight.client)
        if self.prices is not None and flight.plan is not None:
            cost = self.prices.bytes_up(flight.plan)
            if "cut" in fields:
                yield from self._part(fields, flight.plan, cost)
            elif fields["bytes"] != cost:
                yield f"assignment {fields['assignment']} sent {fields['bytes']} bytes, its plan costs {cost}"

    def _part(self, fields: Mapping[str, Any], plan: RankPlan, cost: int) -> Iterator[str]:
        """A part of an update has one column at least, whichever came first, and not all of them."""
        prices = self.prices.up_bytes.tolist() if self.prices is not None else []
        least = max((size for size, rank in zip(prices, plan.trained, strict=True) if rank), default=0)
        if not least <= fields["bytes"] <= cost:
            yield (
                f"assignment {fields['assignment']} sent {fields['bytes']} bytes of an update of {cost}, "
                f"of which {least} are of use"
            )

    def _phase(self, event: str, fields: Mapping[str, Any]) -> Iterator[str]:
        flight = self._flights[fields["assignment"]]
        again = event == "training_started" and flight.stage == _ORDER[event] and flight.is_shrunk
        if _ORDER[event] != flight.stage + 1 and not again:
            yield f"assignment {fields['assignment']}: {event} out of order"
        flight.stage = _ORDER[event]

    def _aggregating(self, fields: Mapping[str, Any]) -> Iterator[str]:
        self._combining.update(fields["assignments"])
        for number in fields["assignments"]:
            if number not in self._flights or self._flights[number].bytes_up is None:
                yield f"assignment {number} is aggregated, and has not arrived"
        if sum(fields["weights"]) > 1.0 + ROUNDING:
            yield f"the weights sum to {sum(fields['weights'])!r}"

    def _settled(self, fields: Mapping[str, Any]) -> Iterator[str]:
        number, outcome = fields["assignment"], fields["outcome"]
        flight = self._flights.pop(number, None)
        if flight is None:
            yield f"assignment {number} ends, and is not under way"
            return
        if flight.bytes_up is None:
            self._busy.discard(flight.client)
        if outcome not in OUTCOMES:
            yield f"assignment {number} ends as {outcome!r}, which is no outcome"
        if outcome == "aggregated" and number not in self._combining:
            yield f"assignment {number} ends as aggregated, and was not"
        self._combining.discard(number)
        for name, whole in (("bytes_down", flight.bytes_down), ("bytes_up", flight.bytes_up)):
            if whole is not None and fields[name] != whole:
                yield f"assignment {number} ends with {fields[name]} {name}, it moved {whole}"


def shown(verdict: Verdict) -> list[str]:
    """Say what was found, and what was checked."""
    lines = [*verdict.findings, *(f"note: {note}" for note in verdict.notes)]
    counted = ", ".join(f"{count} {name}" for name, count in sorted(verdict.counts.items()))
    lines.append(f"{'DAMAGED' if verdict.findings else 'sound'}: checked {counted}")
    return lines
