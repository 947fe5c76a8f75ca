"""How much did a run tell about one client? Epsilon, from the releases that its record shows.

The accountant is Google's ``dp-accounting``, an optional package: Rényi divergences of the Gaussian
mechanism, composed over releases.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from fedsim.errors import MissingExtraError
from fedsim.experiment.trust_sections import PrivacySection

ORDERS = (*range(2, 65), 80, 96, 128, 192, 256, 512, 1024)
"""Of Rényi divergence under sampling, where whole ones have a closed form; epsilon is the least over them."""


def check_accountant() -> None:
    """Refuse to begin a private run that could not tell its epsilon at the end.

    Raises:
        MissingExtraError: With the command that installs it.
    """
    if find_spec("dp_accounting") is None:
        raise MissingExtraError(
            "privacy: needs the package dp-accounting; pip install 'fedsim-lora[privacy]' installs it"
        )


def epsilon(noise_multiplier: float, releases: int, delta: float, sampled: float | None = None) -> float:
    """Return the epsilon of a client that is in every release.

    Args:
        noise_multiplier: Standard deviation of the noise, in clips.
        releases: How many.
        delta: Of (epsilon, delta).
        sampled: Probability with which a secret, independent draw puts the client into a release; None for
            a client that is always in.

    Returns:
        Epsilon under adding or removing one client; 0 where nothing was released.

    Source:
        Mironov, Talwar and Zhang, "Rényi differential privacy of the sampled Gaussian mechanism", arXiv
        1908.10530, as the package computes it.
    """
    check_accountant()
    from dp_accounting import dp_event  # noqa: PLC0415 - optional, and slow to load
    from dp_accounting.rdp import RdpAccountant  # noqa: PLC0415 - the same

    if releases == 0:
        return 0.0
    one: Any = dp_event.GaussianDpEvent(noise_multiplier)
    if sampled is not None:
        one = dp_event.PoissonSampledDpEvent(min(1.0, sampled), one)
    accountant = RdpAccountant(orders=None if sampled is None else ORDERS)
    accountant.compose(dp_event.SelfComposedDpEvent(one, releases))
    return float(accountant.get_epsilon(delta))


@dataclass(slots=True)
class PrivacyMeter:
    """Counts releases, and how often each client was in one. Satisfies `fedsim.sim.instrument.Instrument`.

    Args:
        section: The mechanism.
        cohort: Updates that a round is planned for.
        num_devices: Size of the fleet.
    """

    section: PrivacySection
    cohort: int
    num_devices: int
    _releases: int = 0
    _times: Counter[int] = field(default_factory=Counter)
    _clipped: int = 0
    _updates: int = 0

    def observe(self, time_s: float, event: str, fields: Mapping[str, Any]) -> None:
        """Take note of releases, and of whose updates are in them."""
        del time_s
        if event == "aggregated" and "defence" in fields:
            counted = fields["defence"]["counted"]
            self._releases += 1
            self._updates += len(counted)
            self._clipped += sum(1 for factor in counted.values() if factor < 1.0)
        if event == "settled" and fields["outcome"] == "aggregated":
            self._times[fields["client"]] += 1

    def summary(self) -> dict[str, object]:
        """Return what `summary.json` says."""
        noise, delta = self.section.noise_multiplier, self.section.delta
        most = max(self._times.values(), default=0)
        rate = self.cohort / self.num_devices
        return {
            "clip": self.section.clip,
            "noise_multiplier": noise,
            "delta": delta,
            "releases": self._releases,
            "updates": self._updates,
            "clipped_updates": self._clipped,
            "epsilon": epsilon(noise, self._releases, delta),
            "most_releases_of_a_client": most,
            "epsilon_of_that_client": epsilon(noise, most, delta),
            "epsilon_if_cohorts_were_secret": epsilon(noise, self._releases, delta, rate),
        }
