"""What may a scenario say about the server? Pacing, selection and budgets, and what goes with what."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from fedsim.experiment.sections import Count, Positive, PositiveDuration, Section
from fedsim.experiment.trust_sections import RobustSection


class StalenessSection(Section):
    """What an update counts for that started some versions ago; see `fedsim.method.staleness`.

    Args:
        kind: ``constant`` counts every update in full, ``polynomial`` as ``(1 + s) ** -exponent``, ``hinge``
            in full up to `grace` versions and then as ``1 / (slope (s - grace) + 1)``.
        exponent: 0.5 by default. Only with ``polynomial``.
        slope: 10 by default. Only with ``hinge``.
        grace: 4 by default. Only with ``hinge``.
        subspace: Whether only what of an update lies outside the newest basis counts less. Not ``constant``.
    """

    kind: Literal["constant", "polynomial", "hinge"] = "polynomial"
    exponent: Annotated[float, Field(ge=0)] | None = None
    slope: Positive | None = None
    grace: Annotated[int, Field(ge=0)] | None = None
    subspace: bool = False

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: Any) -> Any:
        """Give constants their defaults only where they have an effect."""
        if not isinstance(values, dict):
            return values
        kind = values.get("kind", "polynomial")
        known = {"polynomial": {"exponent": 0.5}, "hinge": {"slope": 10.0, "grace": 4}}
        return {**known.get(str(kind), {}), **values}


PACING_OPTIONS: dict[str, tuple[tuple[str, ...], object]] = {
    "cohort": (("sync", "semi_sync"), 10),
    "over_selection": (("sync", "semi_sync"), 1.0),
    "surplus": (("sync",), "recall"),
    "concurrency": (("buffered", "async"), 20),
    "buffer": (("buffered",), 4),
    "staleness": (("semi_sync", "buffered", "async"), {}),
    "max_staleness": (("semi_sync", "buffered", "async"), None),
    "server_learning_rate": (("semi_sync", "buffered", "async"), 1.0),
}
"""Option of `ServerSection` -> the pacings on which it has an effect, and its default there."""


class ServerSection(Section):
    """Pacing, selection and budgets. Some options belong to some pacings only; elsewhere they are null.

    Args:
        pacing: When the server aggregates: in rounds, in rounds whose late updates count later, whenever a
            buffer is full, or at every update.
        select: Who is asked.
        cohort: Updates wanted per round, 10 by default. Only in rounds.
        over_selection: Clients asked, as a multiple of the cohort, 1 by default. Only in rounds.
        concurrency: Clients kept at work, 20 by default. Only ``buffered`` and ``async``.
        buffer: Updates that make a version, 4 by default. Only ``buffered``.
        staleness: What old updates count for. Not ``sync``.
        max_staleness: Versions after which an update cannot count; no limit where None. Not ``sync``.
        server_learning_rate: Factor on every update, 1 by default. Not ``sync``.
        deadline_s: When a round closes, or an assignment outside rounds ends, at the latest, YAML
            ``deadline``; never where None.
        min_updates: Fewest updates that make a new version.
        surplus: Whether clients still at work when the cohort is full are told to stop, as by default, or
            arrive late. Only ``sync``.
        download_window_s: Seconds of download a budget allows for, YAML ``download_window``.
        estimator: How the server guesses rates; ``oracle`` reads the traces.
        initial_down_mbps: First guess about downloads where the class has none.
        initial_up_mbps: First guess about uploads where the class has none.
        replan: Whether a budget that moves changes plans of clients that wait or download.
        replan_threshold: Relative move of a budget that counts.
        egress_mbps: What the server sends to all clients together; without limit where None.
        ingress_mbps: What it receives from all together; without limit where None.
        progress_every_s: How often a downloading client reports, YAML ``progress_every``.
        delivery: Whether a plan is made for the bytes that the window should carry, or columns are streamed
            until the window closes and clients train with what has come.
        upload: Whether an update must come whole, or what has come when its upload is cut counts.
        safety_margin: Share of deadline and window that plans leave unused.
        robust: How far a single update is trusted; without it as far as any other.
    """

    pacing: Literal["sync", "semi_sync", "buffered", "async"] = "sync"
    select: Literal["uniform", "oort", "availability_aware", "fastest", "round_robin"] = "uniform"
    cohort: Count | None = None
    over_selection: Annotated[float, Field(ge=1, le=100)] | None = None
    concurrency: Count | None = None
    buffer: Count | None = None
    staleness: StalenessSection | None = None
    max_staleness: Annotated[int, Field(ge=0)] | None = None
    server_learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    deadline_s: PositiveDuration | None = Field(default=None, alias="deadline")
    min_updates: Count = 1
    surplus: Literal["recall", "finish"] | None = None
    download_window_s: PositiveDuration = Field(default=120.0, alias="download_window")
    estimator: Literal["harmonic", "last", "ewma", "oracle"] = "harmonic"
    initial_down_mbps: Positive = 10.0
    initial_up_mbps: Positive = 5.0
    replan: bool = True
    replan_threshold: Positive = 0.2
    egress_mbps: Positive | None = None
    ingress_mbps: Positive | None = None
    progress_every_s: PositiveDuration = Field(default=10.0, alias="progress_every")
    delivery: Literal["planned", "progressive"] = "planned"
    upload: Literal["whole", "progressive"] = "whole"
    safety_margin: Annotated[float, Field(ge=0, lt=1)] = 0.0
    robust: RobustSection | None = None

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: Any) -> Any:
        """Give the options of a pacing their defaults only where they have an effect."""
        if not isinstance(values, dict):
            return values
        pacing = values.get("pacing", "sync")
        given = {name: default for name, (users, default) in PACING_OPTIONS.items() if pacing in users}
        return {**given, **values}


PAUSE_NEEDS = {
    "sync": "pause needs server.deadline, or a device that stays away holds its round",
    "semi_sync": "pause needs server.max_staleness, or a device that stays away holds its version",
    "buffered": "pause needs server.deadline or server.max_staleness, or a device may hold a place",
    "async": "pause needs server.deadline or server.max_staleness, or a device may hold a place",
}


def ends_by_itself(server: ServerSection) -> bool:
    """Whether an assignment that is paused for ever comes to an end."""
    if server.pacing == "semi_sync":
        return server.max_staleness is not None
    return server.deadline_s is not None or server.max_staleness is not None


def pacing_misfits(server: ServerSection) -> Iterator[tuple[str, str]]:
    """Yield options that contradict the pacing: the key to change, and why."""
    for name, (users, default) in PACING_OPTIONS.items():
        value = getattr(server, name)
        if value is not None and server.pacing not in users:
            yield (
                f"server.{name}",
                f"has no effect on {server.pacing} pacing; leave it out or write null",
            )
        if value is None and server.pacing in users and default is not None:
            kind = "a whole number" if isinstance(default, int) else "a value"
            yield f"server.{name}", f"expected {kind}, got nothing"
    if server.pacing == "semi_sync" and server.deadline_s is None:
        yield (
            "server.deadline",
            "required by semi_sync pacing: there a round closes without waiting on",
        )
    name, most = ("cohort", server.cohort) if server.cohort is not None else ("buffer", server.buffer or 1)
    if server.min_updates > most:
        yield "server.min_updates", f"expected at most the {name}, {most}, got {server.min_updates}"
    if server.staleness is not None:
        yield from _staleness_misfits(server.staleness)


def _staleness_misfits(staleness: StalenessSection) -> Iterator[tuple[str, str]]:
    users = {"exponent": "polynomial", "slope": "hinge", "grace": "hinge"}
    for name, user in users.items():
        value = getattr(staleness, name)
        if value is not None and staleness.kind != user:
            yield f"server.staleness.{name}", f"has no effect on {staleness.kind} staleness; leave it out"
        if value is None and staleness.kind == user:
            yield f"server.staleness.{name}", "expected a number, got nothing"
    if staleness.subspace and staleness.kind == "constant":
        yield "server.staleness.subspace", "has no effect on constant staleness; leave it out"
