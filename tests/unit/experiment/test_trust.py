"""What a scenario may say about trust, what is refused, and what epsilon comes of it."""

import importlib.util
import math

import pytest
import torch

from fedsim.errors import MissingExtraError, ScenarioError
from fedsim.experiment import privacy
from fedsim.experiment.privacy import PrivacyMeter, epsilon
from fedsim.experiment.scenario import load_scenario
from fedsim.experiment.trust import FaultyFleet, faulty_clients, trust_caveats, version_guard
from fedsim.experiment.trust_sections import FaultsSection, PrivacySection
from fedsim.lora.factors import Factors
from fedsim.method.catalogue import build_method
from fedsim.method.messages import RankPlan, Update
from fedsim.seeds import Seeds

BASE = """\
name: good
fleet: {devices: d.csv, bandwidth: b.csv, availability_policy: always}
stop: {rounds: 3}
"""
PRIVACY = "privacy: {clip: 1.0, noise_multiplier: 1.0}"


def load(tmp_path, *lines):
    path = tmp_path / "x.yaml"
    path.write_text(BASE + "".join(f"{line}\n" for line in lines))
    return load_scenario(path)


def guard(scenario, method="fedhera", **options):
    return version_guard(scenario, Seeds(0), build_method(method, options))


def test_nothing_is_guarded_by_default(tmp_path):
    scenario = load(tmp_path)
    assert guard(scenario).rule is guard(scenario).mechanism is None
    assert faulty_clients(scenario, 200) == ()
    assert trust_caveats(scenario) == []


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        (["server: {robust: {rule: trim, bound: 2.0}}"], "server.robust.bound: has no effect on trim"),
        (["server: {robust: {rule: clip, share: 0.1}}"], "server.robust.share: has no effect on clip"),
        (["server: {robust: {rule: trim, share: 0.5}}"], "server.robust.share: expected less than 0.5"),
        (["server: {robust: {rule: trim, share: null}}"], "server.robust.share: expected a number"),
        (["server: {robust: {rule: krum}}"], 'server.robust.rule: expected "clip", "trim" or'),
        (["server: {robust: {rule: clip}}", PRIVACY], "server.robust: privacy clips every update itself"),
        (["server: {pacing: async}", PRIVACY], "server.pacing: privacy needs sync, got async"),
        (["server: {select: oort}", PRIVACY], "server.select: oort chooses by losses"),
        (["privacy: {clip: 1.0}"], "privacy.noise_multiplier: required"),
        (["faults: {share: 0}"], "faults.share: expected more than 0"),
        (["faults: {share: 0.1, sends: non_finite, factor: 2}"], "faults.factor: has no effect"),
        (["faults: {share: 0.1, factor: null}"], "faults.factor: expected a number"),
    ],
)
def test_contradictions_are_refused(tmp_path, lines, key):
    with pytest.raises(ScenarioError) as found:
        load(tmp_path, *lines)
    assert key in str(found.value)


@pytest.mark.parametrize("method", ["flexlora", "hetlora", "raflora", "fed_plora", "fedex_lora"])
def test_clipping_is_refused_where_less_weight_shrinks_the_model(tmp_path, method):
    options = {"weights": "samples"} if method == "hetlora" else {}
    clip = load(tmp_path, "server: {robust: {rule: clip}}")
    with pytest.raises(ScenarioError, match=r"server\.robust: clip means nothing for the method"):
        guard(clip, method, **options)
    assert guard(load(tmp_path, "server: {robust: {rule: trim}}"), method, **options).rule is not None


@pytest.mark.parametrize(
    ("method", "options"),
    [("hetlora", {}), ("fedhl", {"weights": "error"}), ("fedhera", {"tail": "returned_gated"})],
)
def test_a_method_with_weights_of_its_own_takes_no_rule(tmp_path, method, options):
    with pytest.raises(ScenarioError, match=r"server\.robust: geometric_median means nothing for"):
        guard(load(tmp_path, "server: {robust: {rule: geometric_median}}"), method, **options)


@pytest.mark.parametrize("method", ["flexlora", "flora", "fslora", "fedhera_paper"])
def test_privacy_is_refused_where_no_clip_bounds_a_client(tmp_path, method):
    with pytest.raises(ScenarioError, match=f"privacy: not for the method {method}: no clip bounds"):
        guard(load(tmp_path, PRIVACY), method)


def test_the_mechanism_divides_by_the_planned_cohort(tmp_path):
    mechanism = guard(load(tmp_path, PRIVACY, "server: {cohort: 5}")).mechanism
    assert mechanism.cohort == 5
    assert mechanism.noise_std == pytest.approx(0.2)


def test_without_the_accountant_a_private_run_does_not_begin(tmp_path, monkeypatch):
    monkeypatch.setattr(privacy, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fedsim-lora\[privacy\]'"):
        guard(load(tmp_path, PRIVACY))


needs_accountant = pytest.mark.skipif(
    importlib.util.find_spec("dp_accounting") is None, reason="the extra privacy is not installed"
)


@needs_accountant
def test_epsilon_is_that_of_the_gaussian_mechanism():
    """One release has Rényi divergence a / 2: at most the least of a / 2 + log(1 / delta) / (a - 1)."""
    bound = min(a / 2 + math.log(1e5) / (a - 1) for a in range(2, 65))
    assert 0.8 * bound < epsilon(1.0, 1, 1e-5) <= bound
    assert epsilon(1.0, 4, 1e-5) == pytest.approx(epsilon(0.5, 1, 1e-5))
    assert epsilon(1.0, 0, 1e-5) == 0.0


@needs_accountant
def test_more_releases_cost_more_and_secret_cohorts_less():
    assert epsilon(1.0, 12, 1e-5) == pytest.approx(21.44, abs=0.3)
    assert epsilon(1.0, 12, 1e-5, sampled=0.05) < 0.2 * epsilon(1.0, 12, 1e-5)
    assert epsilon(1.0, 12, 1e-5, sampled=1.0) == pytest.approx(epsilon(1.0, 12, 1e-5), rel=0.05)


@needs_accountant
def test_the_meter_reads_the_record():
    meter = PrivacyMeter(PrivacySection(clip=1.0, noise_multiplier=1.0), cohort=2, num_devices=40)
    for clients in ((3, 4), (3, 5)):
        for client in clients:
            meter.observe(0.0, "settled", {"outcome": "aggregated", "client": client})
        meter.observe(0.0, "aggregated", {"defence": {"counted": {"0": 0.5, "1": 1.0}}})
    meter.observe(0.0, "aggregated", {"version": 2})
    meter.observe(0.0, "settled", {"outcome": "dropped", "client": 3})
    told = meter.summary()
    assert told["releases"] == told["most_releases_of_a_client"] == told["clipped_updates"] == 2
    assert told["epsilon"] == epsilon(1.0, 2, 1e-5)
    assert told["epsilon_if_cohorts_were_secret"] == epsilon(1.0, 2, 1e-5, 0.05)


def test_faulty_clients_are_an_exact_share_and_follow_the_seed(tmp_path):
    scenario = load(tmp_path, "faults: {share: 0.15}")
    drawn = faulty_clients(scenario, 200)
    assert len(set(drawn)) == 30
    assert drawn == faulty_clients(scenario, 200)
    assert drawn != faulty_clients(scenario.model_copy(update={"seed": 1}), 200)
    assert len(faulty_clients(scenario, 2)) == 1


class Kept:
    """Keeps what it is given to combine."""

    def __init__(self):
        self.updates = None
        self.expected = None

    async def aggregate(self, version, updates, weights):
        self.updates = updates

    def expect(self, requests):
        self.expected = requests


@pytest.mark.parametrize(
    ("section", "factor"),
    [
        (FaultsSection(share=0.5), -1.0),
        (FaultsSection(share=0.5, sends="scaled"), 10.0),
        (FaultsSection(share=0.5, sends="flipped", factor=5.0), -5.0),
        (FaultsSection(share=0.5, sends="non_finite"), math.nan),
    ],
)
async def test_faulty_clients_send_something_else_and_others_do_not(section, factor):
    kept = Kept()
    change = {"layer": Factors(lora_a=torch.ones(1, 2), lora_b=torch.full((2, 1), 2.0))}
    updates = [Update(n, n, 0, RankPlan((1,), (1,)), change, 1, 0.5) for n in (1, 2)]
    fleet = FaultyFleet(kept, section, frozenset({2}))
    fleet.expect([1])
    await fleet.aggregate(0, updates, [0.5, 0.5])
    assert kept.updates[0] is updates[0]
    torch.testing.assert_close(
        kept.updates[1].change["layer"].lora_b, torch.full((2, 1), 2.0 * factor), equal_nan=True
    )
    assert kept.expected == [1]
