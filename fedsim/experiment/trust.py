"""How do the sections about trust become rules, and who are the clients that send something else?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedsim.experiment.privacy import check_accountant
from fedsim.experiment.scenario import Scenario
from fedsim.experiment.trust_sections import FaultsSection, RobustSection
from fedsim.learn.versions import VersionGuard
from fedsim.lora.factors import Adapter, Factors
from fedsim.method.bundle import Combined, Method
from fedsim.method.events import Spectrum
from fedsim.method.messages import TrainRequest, Update
from fedsim.method.private import Mechanism
from fedsim.method.robust import Rule, clip, geometric_median, trim
from fedsim.seeds import Seeds, mix
from fedsim.sim.executor import Aggregator

REPLACED = (
    "its next version is an average and not the old one plus updates, so that less weight shrinks the model "
    "and not the update; use trim or geometric_median"
)


def version_guard(scenario: Scenario, seeds: Seeds, method: Method) -> VersionGuard:
    """Make what keeps one update from having too much say.

    Raises:
        ScenarioError: If the rule means nothing for the method.
        MissingExtraError: If privacy is asked for and its accountant is not installed.
    """
    robust, privacy = scenario.server.robust, scenario.privacy
    if robust is not None:
        reason = method.own_weights or (REPLACED if method.sync_only and robust.rule == "clip" else "")
        if reason:
            raise scenario.error(
                "server.robust", f"{robust.rule} means nothing for the method {method.name}: {reason}"
            )
        return VersionGuard(rule=_rule(robust))
    if privacy is None:
        return VersionGuard()
    if method.release is None:
        raise scenario.error(
            "privacy",
            f"not for the method {method.name}: no clip bounds how far one client moves its next version; "
            "fedhera (tail frozen or none), fedhl and ffa_lora add clipped updates to the old version",
        )
    check_accountant()
    cohort = scenario.server.cohort or 1
    seed = seeds.seed("privacy")
    return VersionGuard(mechanism=Mechanism(privacy.clip, privacy.noise_multiplier, cohort, seed))


def _rule(robust: RobustSection) -> Rule:
    if robust.rule == "clip":
        return clip(robust.bound)
    return geometric_median() if robust.rule == "geometric_median" else trim(robust.share or 0.0)


def faulty_clients(scenario: Scenario, num_devices: int) -> tuple[int, ...]:
    """Draw the clients that do not send what they trained, ascending; the same for every method of a seed."""
    if scenario.faults is None:
        return ()
    count = max(1, round(scenario.faults.share * num_devices))
    lots = mix(Seeds(scenario.seed).seed("faults"), np.arange(num_devices))
    return tuple(sorted(np.argsort(lots, kind="stable")[:count].tolist()))


def trust_caveats(scenario: Scenario) -> list[str]:
    """Say what every reader of the figures must know about faults, rules and noise."""
    faults = scenario.faults
    if scenario.executor.kind == "stub":
        asked = scenario.server.robust or scenario.privacy or faults
        return ["Faults, server.robust and privacy act on tensors; a stub has none."] if asked else []
    told = []
    if faults is not None:
        told.append(f"FAULTS ARE INJECTED: {faults.share:.0%} of the devices send {faults.sends} updates.")
    if scenario.privacy is not None:
        told.append("Epsilon speaks of released versions; this record holds figures about single clients.")
    return told


@dataclass(frozen=True, slots=True)
class FaultyFleet:
    """Hands an aggregator what faulty clients send in place of what they trained.

    The journal stands before it and keeps what was trained, so that it can be trained again and compared.

    Args:
        inner: Combines what is sent.
        faults: What they send.
        clients: Who they are.
    """

    inner: Aggregator
    faults: FaultsSection
    clients: frozenset[int]

    def spectrum(self, version: int) -> Spectrum:
        """Singular values of a stored version."""
        return self.inner.spectrum(version)

    def release(self, version: int) -> None:
        """Forget a version that nobody refers to."""
        self.inner.release(version)

    def expect(self, requests: Sequence[TrainRequest]) -> None:
        """Pass on requests whose updates come from elsewhere, to whoever wants to know them."""
        expect = getattr(self.inner, "expect", None)
        if expect is not None:
            expect(requests)

    async def aggregate(self, version: int, updates: Sequence[Update], weights: Sequence[float]) -> Combined:
        """Make the next version of what was sent."""
        sent = [self._sent(update) if update.client in self.clients else update for update in updates]
        return await self.inner.aggregate(version, sent, weights)

    def _sent(self, update: Update) -> Update:
        if update.change is None:
            return update
        factor = {"flipped": -1.0, "scaled": 1.0, "non_finite": math.nan}[self.faults.sends]
        return replace(update, change=times(update.change, factor * (self.faults.factor or 1.0)))


def times(change: Adapter, factor: float) -> dict[str, Factors]:
    """Multiply both factors of a change: a step of another length, or backwards."""
    return {
        name: Factors(lora_a=pair.lora_a * factor, lora_b=pair.lora_b * factor)
        for name, pair in change.items()
    }
