"""How is a line of the record said in words? For following a run, and for the life of one device."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from fedsim.errors import InputError
from fedsim.experiment.report.sentences import reason_in_words
from fedsim.units import format_bytes, format_seconds

Line = Mapping[str, Any]
OUTCOMES = {
    "aggregated": "its update is part of the next version",
    "late": "its update came after the round had closed, and is not used",
    "timed_out": "the deadline came first",
    "stale": "its update is too old to be used",
    "dropped": "it dropped out during {phase}",
    "failed": "training failed",
    "discarded": "too few updates came, so the round was discarded",
    "cancelled": "it was told to stop",
}
CLIENT_EVENTS = frozenset({"arrived", "departed", "declined", "dispatched"})
SERVER_EVENTS = frozenset({"fleet", "aggregated", "round_closed", "evaluated", "stopped"})


@dataclass(slots=True)
class Teller:
    """Says each line in words; remembers plans and who has which assignment."""

    _devices: dict[int, str] = field(default_factory=dict)
    _plans: dict[int, str] = field(default_factory=dict)

    def tell(self, line: Line) -> str | None:
        """Return one sentence with its time in front, or None where there is nothing to say."""
        rule: Callable[[Line], str | None] | None = getattr(self, f"_{line['event']}", None)
        words = None if rule is None else rule(line)
        return None if words is None else f"{format_seconds(float(line['time_s'])):>12}  {words}"

    def _plan(self, line: Line) -> None:
        self._plans[line["plan"]] = f"rank {_mean(line['total'])} received, {_mean(line['trained'])} trained"

    def _fleet(self, line: Line) -> str:
        return f"the server looks at the fleet: {line['online']} online, {line['busy']} at work"

    def _arrived(self, line: Line) -> str:
        return f"{line['device']} comes online"

    def _departed(self, line: Line) -> str:
        return f"{line['device']} goes offline"

    def _declined(self, line: Line) -> str:
        return f"{line['device']} is refused: {reason_in_words(str(line['reason']))}"

    def _dispatched(self, line: Line) -> str:
        self._devices[line["assignment"]] = str(line["device"])
        budget = line["budget"]
        told = (
            f"{line['device']} is given assignment {line['assignment']} from version {line['version']}: "
            f"{self._plans[line['plan']]}; it may take {format_bytes(budget['download_bytes'])} down and "
            f"{format_bytes(budget['memory_bytes'])} of memory"
        )
        due = line.get("deadline_at_s")
        return told if due is None else f"{told}, until {format_seconds(float(due))}"

    def _replanned(self, line: Line) -> str:
        return (
            f"{self._device(line)} is re-planned because of its {line['reason']}: "
            f"{self._plans[line['old_plan']]} -> {self._plans[line['new_plan']]}"
        )

    def _downloaded(self, line: Line) -> str:
        return f"{self._device(line)} has downloaded {_moved(line)}"

    def _training_started(self, line: Line) -> str:
        return f"{self._device(line)} begins to train: {self._plans[line['plan']]}"

    def _trained(self, line: Line) -> str:
        return f"{self._device(line)} has trained for {format_seconds(float(line['duration_s']))}"

    def _uploaded(self, line: Line) -> str:
        return f"{self._device(line)} has uploaded {_moved(line)}"

    def _paused(self, line: Line) -> str:
        back = format_seconds(float(line["resumes_at_s"]))
        return f"{self._device(line)} leaves during {line['phase']} and will go on at {back}"

    def _settled(self, line: Line) -> str:
        words = OUTCOMES.get(str(line["outcome"]), str(line["outcome"])).format(phase=line["phase"])
        why = f" ({line['reason']})" if line["reason"] else ""
        device = self._devices.pop(line["assignment"], f"client {line['client']}")
        return f"{device}: assignment {line['assignment']} has ended, {words}{why}"

    def _aggregated(self, line: Line) -> str:
        return f"version {line['version']} is there"

    def _round_closed(self, line: Line) -> str:
        return f"round {line['round']} is over: {line['result']}"

    def _evaluated(self, line: Line) -> str:
        told = {
            name: value
            for name, value in line.items()
            if name not in ("time_s", "event", "version") and isinstance(value, float)
        }
        figures = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in told.items())
        return f"version {line['version']} is measured: {figures or 'nothing, as nothing was trained'}"

    def _stopped(self, line: Line) -> str:
        return f"the run ends: {line['reason']}"

    def _device(self, line: Line) -> str:
        return self._devices.get(line["assignment"], f"assignment {line['assignment']}")


def biography(lines: Iterable[Line], client: str) -> Iterator[str]:
    """Tell everything that the record says about one device.

    Args:
        lines: Of the record, in order.
        client: Name of the device, or its index.

    Yields:
        One sentence per event.

    Raises:
        InputError: If the record never speaks of it.
    """
    teller = Teller()
    mine: set[int] = set()
    spoken_of: dict[str, None] = {}
    found = False
    for line in lines:
        if line["event"] in CLIENT_EVENTS:
            spoken_of[str(line["device"])] = None
            concerns = client in (str(line["client"]), line["device"])
            if concerns and line["event"] == "dispatched":
                mine.add(line["assignment"])
        else:
            concerns = line["event"] != "plan" and line.get("assignment") in mine
        said = teller.tell(line) if concerns or line["event"] in ("plan", "dispatched") else None
        if concerns and said is not None:
            found = True
            yield said
    if not found:
        near = get_close_matches(client, spoken_of, n=3) or list(spoken_of)[:3]
        raise InputError(
            f"client {client}: the record never speaks of it; name a device that was given work or refused, "
            f"such as {', '.join(near) or 'none in this record'}"
        )


def _mean(ranks: list[int]) -> str:
    return f"{sum(ranks) / max(len(ranks), 1):.1f}"


def _moved(line: Line) -> str:
    return f"{format_bytes(float(line['bytes']))} in {format_seconds(float(line['duration_s']))}"
