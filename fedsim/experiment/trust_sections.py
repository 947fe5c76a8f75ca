"""What may a scenario say about clients that cannot be trusted, and about those who trust nobody?"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from fedsim.experiment.sections import Positive, Section

Share = Annotated[float, Field(gt=0, le=1)]
TRIM_SHARE = 0.2
SCALED_BY = 10.0


class RobustSection(Section):
    """How far a single update is trusted; see `fedsim.method.robust`.

    Args:
        rule: ``clip`` shortens long updates, ``trim`` sets the longest and the shortest aside,
            ``geometric_median`` counts updates for less the further they are from the others.
        bound: Norm that no update may exceed; the median norm of those combined where None. Only ``clip``.
        share: Of updates set aside at either end, 0.2 by default. Only ``trim``.
    """

    rule: Literal["clip", "trim", "geometric_median"]
    bound: Positive | None = None
    share: Annotated[float, Field(gt=0, lt=0.5)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: Any) -> Any:
        """Give an option its default only where it has an effect."""
        if isinstance(values, dict) and values.get("rule") == "trim":
            return {"share": TRIM_SHARE, **values}
        return values


class PrivacySection(Section):
    """The Gaussian mechanism on every version; see docs/privacy.md for what it promises.

    Args:
        clip: Bound on the norm of one client's update, over all layers.
        noise_multiplier: Standard deviation of the noise on the sum of updates, in clips.
        delta: Of the (epsilon, delta) that is told; well below one over the number of clients.
    """

    clip: Positive
    noise_multiplier: Positive
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5


class FaultsSection(Section):
    """Clients that send something else than what they trained. A fault is injected, never found in a trace.

    Args:
        share: Of the fleet, drawn once by the seed; at least one device.
        sends: ``flipped`` sends the change with the other sign, ``scaled`` a multiple of it, ``non_finite``
            numbers that are none.
        factor: Multiple of the change; 1 by default for ``flipped``, 10 for ``scaled``. Not ``non_finite``.
    """

    share: Share
    sends: Literal["flipped", "scaled", "non_finite"] = "flipped"
    factor: Positive | None = None

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: Any) -> Any:
        """Give the factor its default where it has an effect."""
        if not isinstance(values, dict):
            return values
        factor = {"flipped": 1.0, "scaled": SCALED_BY}.get(str(values.get("sends", "flipped")))
        return values if factor is None else {"factor": factor, **values}


def trust_misfits(
    robust: RobustSection | None, privacy: PrivacySection | None, faults: FaultsSection | None
) -> Iterator[tuple[str, str]]:
    """Yield values that contradict each other: the key to change, and why."""
    if robust is not None:
        yield from _robust_misfits(robust)
        if privacy is not None:
            yield "server.robust", "privacy clips every update itself; leave one of the two out"
    if faults is not None:
        yield from _faults_misfits(faults)


def _robust_misfits(robust: RobustSection) -> Iterator[tuple[str, str]]:
    for name, user in (("bound", "clip"), ("share", "trim")):
        if getattr(robust, name) is not None and robust.rule != user:
            yield f"server.robust.{name}", f"has no effect on {robust.rule}; leave it out"
    if robust.rule == "trim" and robust.share is None:
        yield "server.robust.share", "expected a number, got nothing"


def _faults_misfits(faults: FaultsSection) -> Iterator[tuple[str, str]]:
    if faults.sends == "non_finite" and faults.factor is not None:
        yield "faults.factor", "has no effect on non_finite; leave it out"
    if faults.sends != "non_finite" and faults.factor is None:
        yield "faults.factor", "expected a number, got nothing"


def privacy_misfits(privacy: PrivacySection | None, pacing: str, select: str) -> Iterator[tuple[str, str]]:
    """Yield what would let one client show more often, or elsewhere, than the mechanism accounts for."""
    if privacy is None:
        return
    if pacing != "sync":
        yield (
            "server.pacing",
            f"privacy needs sync, got {pacing}: elsewhere one client may be in a version more than once",
        )
    if select == "oort":
        yield "server.select", "oort chooses by losses of clients, which privacy does not cover"
