"""What goes into the record? One line per fact, plain values, virtual time first.

The record holds no wall time, path, process id or executor name: two runs of one scenario and seed give the
same lines. A plan is written once and referred to by its number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fedsim.errors import SimulationError
from fedsim.method import events as ev
from fedsim.method.bundle import Measurements
from fedsim.method.messages import Budget, Defence, Evaluation, RankPlan
from fedsim.sim.energy import Spans
from fedsim.sim.instrument import Instrument
from fedsim.sim.trip import Trip
from fedsim.world.device import Device

Line = tuple[float, str, Mapping[str, object]]
"""Virtual time, event, fields."""


@dataclass(slots=True)
class Scribe:
    """Tells every observer each fact, in order.

    Args:
        instruments: Who watches.
    """

    instruments: Sequence[Instrument]
    _plans: dict[RankPlan, int] = field(default_factory=dict)
    _spans: dict[int, Spans] = field(default_factory=dict)
    _now_s: float = 0.0
    _held: "list[Line] | None" = None
    _held_at_s: float = 0.0

    def _write(self, time_s: float, event: str, **fields: object) -> None:
        if time_s < self._now_s:
            raise SimulationError(f"time would fall from {self._now_s!r} s to {time_s!r} s at {event}")
        self._now_s = time_s
        if self._held is None:
            self._tell(time_s, event, fields)
        else:
            self._held.append((time_s, event, fields))

    def _tell(self, time_s: float, event: str, fields: Mapping[str, object]) -> None:
        for instrument in self.instruments:
            instrument.observe(time_s, event, fields)

    def _plan(self, time_s: float, plan: RankPlan) -> int:
        """The number of a plan; a plan that is new is written first."""
        number = self._plans.get(plan)
        if number is None:
            number = self._plans[plan] = len(self._plans)
            merged = {"merged": list(plan.merged)} if any(plan.merged) else {}
            self._write(
                time_s, "plan", plan=number, total=list(plan.total), trained=list(plan.trained), **merged
            )
        return number

    # --- the fleet --------------------------------------------------------------------------------------

    def fleet_seen(self, time_s: float, num_online: int, num_busy: int) -> None:
        """The server looked at the fleet."""
        self._write(time_s, "fleet", online=num_online, busy=num_busy)

    def arrived(self, time_s: float, device: Device) -> None:
        """A device that has taken part came online."""
        self._write(time_s, "arrived", client=device.index, device=device.device_id)

    def departed(self, time_s: float, device: Device) -> None:
        """A device that has taken part went offline."""
        self._write(time_s, "departed", client=device.index, device=device.device_id)

    def declined(self, time_s: float, device: Device, reason: str) -> None:
        """A device cannot take part."""
        self._write(
            time_s,
            "declined",
            client=device.index,
            device=device.device_id,
            device_class=device.device_class,
            reason=reason,
        )

    # --- one assignment ---------------------------------------------------------------------------------

    def dispatched(self, time_s: float, trip: Trip, budget: Budget) -> None:
        """An assignment was sent."""
        assignment = trip.assignment
        spans = self._spans[assignment.id] = Spans()
        spans.begin("download", time_s)
        plan = self._plan(time_s, assignment.offered)
        deadline_at_s = assignment.deadline_at_s
        self._write(
            time_s,
            "dispatched",
            assignment=assignment.id,
            client=assignment.client,
            device=trip.device.device_id,
            device_class=trip.device.device_class,
            version=assignment.version,
            plan=plan,
            budget=_fields(budget),
            gate=assignment.gate,
            steps=assignment.steps,
            learning_rate=assignment.learning_rate,
            deadline_at_s=None if deadline_at_s == float("inf") else deadline_at_s,
        )

    def replanned(self, time_s: float, action: ev.Replan) -> None:
        """A client that waits or downloads follows a new plan."""
        old, new = self._plan(time_s, action.old), self._plan(time_s, action.new)
        self._write(
            time_s,
            "replanned",
            assignment=action.assignment,
            reason=action.reason,
            old_plan=old,
            new_plan=new,
            budget=_fields(action.budget),
            received=list(action.received),
            received_bytes=action.received_bytes,
            ahead={"download_bytes": action.ahead.download_bytes, "seconds": action.ahead.seconds},
        )

    def downloaded(
        self, time_s: float, trip: Trip, duration_s: float, unused_bytes: int | None = None
    ) -> None:
        """A download is over; of a stream, the bytes of a column that was cut are unused."""
        self._spans[trip.assignment.id].end("download", time_s)
        self._write(
            time_s,
            "downloaded",
            assignment=trip.assignment.id,
            bytes=trip.bytes_down,
            duration_s=_positive(duration_s, "download"),
            **({} if unused_bytes is None else {"unused_bytes": unused_bytes}),
        )

    def training_started(self, time_s: float, trip: Trip) -> None:
        """A plan is final."""
        spans = self._spans[trip.assignment.id]
        spans.end("train", time_s)  # steps that begin again with a smaller plan have cost energy too
        spans.begin("train", time_s)
        plan = self._plan(time_s, trip.plan)
        self._write(time_s, "training_started", assignment=trip.assignment.id, plan=plan)

    def trained(self, time_s: float, trip: Trip, duration_s: float) -> None:
        """The local steps are done."""
        spans = self._spans[trip.assignment.id]
        spans.end("train", time_s)
        spans.begin("upload", time_s)
        duration_s = _positive(duration_s, "training")
        self._write(time_s, "trained", assignment=trip.assignment.id, duration_s=duration_s)

    def uploaded(self, time_s: float, trip: Trip, duration_s: float, cut: str = "") -> None:
        """An update reached the server, or what had come of it when its upload was cut."""
        self._spans[trip.assignment.id].end("upload", time_s)
        self._write(
            time_s,
            "uploaded",
            assignment=trip.assignment.id,
            bytes=trip.bytes_up,
            duration_s=_positive(duration_s, "upload"),
            **({"cut": cut} if cut else {}),
        )

    def paused(self, time_s: float, trip: Trip, resumes_at_s: float) -> None:
        """A device left mid-work and will go on when it is back."""
        self._spans[trip.assignment.id].pause(time_s, resumes_at_s)
        self._write(
            time_s,
            "paused",
            assignment=trip.assignment.id,
            phase=trip.phase,
            resumes_at_s=resumes_at_s,
        )

    def settled(self, time_s: float, trip: Trip, action: ev.Settle) -> None:
        """An assignment has ended; its energy is told where the fleet has coefficients."""
        spans, power = self._spans.pop(action.assignment), trip.device.power
        spans.close(time_s)
        energy = {} if power is None else {"energy_j": spans.joules(power, trip.bytes_down, trip.bytes_up)}
        self._write(
            time_s,
            "settled",
            assignment=action.assignment,
            client=trip.assignment.client,
            device_class=trip.device.device_class,
            outcome=action.outcome,
            phase=action.phase,
            reason=action.reason,
            plan=self._plan(time_s, trip.plan),
            bytes_down=trip.bytes_down,
            bytes_up=trip.bytes_up,
            **energy,
        )

    # --- versions ---------------------------------------------------------------------------------------

    def aggregating(self, time_s: float, action: ev.Aggregate) -> None:
        """The server combines updates; staleness and discounts only where versions are mixed."""
        mixed = {"staleness": list(action.staleness), "discounts": list(action.discounts)}
        if action.damping:
            mixed["damping"] = list(action.damping)
        if not action.discounts:
            mixed = {}
        self._write(
            time_s,
            "aggregating",
            version=action.version,
            assignments=list(action.assignments),
            weights=list(action.weights),
            **mixed,
        )

    def aggregated(self, event: ev.Aggregated) -> None:
        """A version was made, or too few updates were left."""
        self._write(
            event.now_s,
            "aggregated",
            version=event.version,
            ranks={layer: len(values) for layer, values in sorted(event.spectrum.items())},
            energy={layer: float((values**2).sum()) for layer, values in sorted(event.spectrum.items())},
            alignments=_by_assignment(event.alignments),
            losses=_by_assignment(event.losses),
            failed=_by_assignment(event.failed),
            **({"pruned": _by_assignment(event.pruned)} if event.pruned else {}),
            **(
                {"arrived": {str(number): list(event.arrived[number]) for number in sorted(event.arrived)}}
                if event.arrived
                else {}
            ),
            **({"defence": _defence(event.defence)} if event.defence else {}),
        )

    def measured(self, time_s: float, version: int, found: Measurements) -> None:
        """The updates that made a version were compared with what unbounded clients would have sent."""
        self._write(
            time_s,
            "measured",
            version=version,
            means=dict(found.means),
            assignments={
                str(number): dict(found.assignments[number]) for number in sorted(found.assignments)
            },
            spectrum={layer: list(values) for layer, values in sorted(found.spectrum.items())},
        )

    def round_closed(self, time_s: float, action: ev.CloseRound) -> None:
        """A round has ended."""
        self._write(time_s, "round_closed", round=action.round, version=action.version, result=action.result)

    def evaluated(self, time_s: float, evaluation: Evaluation) -> None:
        """A version was measured on held-out data."""
        self._write(time_s, "evaluated", **_measures(evaluation))

    def keep_place(self, time_s: float) -> None:
        """A version is being measured: its line belongs here, and what comes after it waits for it."""
        self._held, self._held_at_s = [], time_s

    def fill_place(self, evaluation: Evaluation) -> None:
        """The version is measured: its line is told, and then all that has waited."""
        held, self._held = self._held or [], None
        self._tell(self._held_at_s, "evaluated", _measures(evaluation))
        for line in held:
            self._tell(*line)

    def stopped(self, time_s: float, reason: str) -> None:
        """The run is over."""
        self._write(time_s, "stopped", reason=reason)


def _measures(evaluation: Evaluation) -> dict[str, object]:
    return {
        "version": evaluation.version,
        "loss": evaluation.loss,
        "token_accuracy": evaluation.token_accuracy,
        **evaluation.metrics,
    }


def _fields(budget: Budget) -> dict[str, float]:
    """As `dataclasses.asdict`, which is slow."""
    return {
        "download_bytes": budget.download_bytes,
        "memory_bytes": budget.memory_bytes,
        "seconds": budget.seconds,
        "download_bps": budget.download_bps,
        "upload_bps": budget.upload_bps,
        "flops": budget.flops,
    }


def _by_assignment(
    values: dict[int, object] | dict[int, float] | dict[int, str] | dict[int, int],
) -> dict[str, object]:
    return {str(number): values[number] for number in sorted(values)}


def _defence(defence: Defence) -> dict[str, object]:
    told: dict[str, object] = {
        "norms": _by_assignment(defence.norms),
        "counted": _by_assignment(defence.counted),
    }
    return told if defence.noise_std is None else {**told, "noise_std": defence.noise_std}


def _positive(duration_s: float, phase: str) -> float:
    """A phase that takes no time means that a duration is missing."""
    if not duration_s > 0:
        raise SimulationError(
            f"{phase} took {duration_s!r} s; every phase takes time, so a duration is missing"
        )
    return duration_s
