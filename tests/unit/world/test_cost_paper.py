"""The published budgets, tier by tier and model by model, in MiB and milliseconds."""

from itertools import pairwise

import numpy as np
import pytest

from fedsim.method.catalogue import build_method
from fedsim.method.messages import Budget, RankPlan
from fedsim.world.catalogue import catalogue_shape
from fedsim.world.cost_paper import SECONDS_FLOPS, SETTINGS, TIERS, paper_prices, tier_budget, unit_sum

MIB = 2**20
INF = float("inf")
PUBLISHED = {
    "tinyllama-1.1b": (154, 788_480, (52.9, 79.4, 105.9), (590, 1180, 2359), {2304, 4096, 7680}),
    "llama-3.2-3b": (196, 1_519_616, (102.0, 153.0, 204.1), (1137, 2273, 4547), {4096, 6144, 11264}),
    "llama-2-7b": (224, 2_498_560, (167.8, 251.6, 335.5), (1869, 3738, 7476), {8192, 15104}),
    "mistral-7b": (224, 2_621_440, (176.0, 264.0, 352.0), (1961, 3922, 7843), {5120, 8192, 18432}),
}


@pytest.mark.parametrize("model", PUBLISHED)
def test_published_budgets(model):
    layers, units, mebibytes, milliseconds, widths = PUBLISHED[model]
    shape = catalogue_shape(model)
    assert len(shape.layers) == layers
    assert unit_sum(shape) == units
    assert {layer.d_in + layer.d_out for layer in shape.layers} == widths
    for tier, size, duration in zip(TIERS, mebibytes, milliseconds, strict=True):
        budget = tier_budget(shape, tier)
        assert budget.download_bytes / MIB == pytest.approx(size, abs=0.06)
        assert 1000 * budget.seconds == pytest.approx(duration, abs=0.6)
        assert budget.memory_bytes == 64_000 * MIB


def tier_plan(model, tier, sigma, **options):
    shape = catalogue_shape(model)
    published = tier_budget(shape, tier)
    budget = Budget(
        published.download_bytes, published.memory_bytes, published.seconds, INF, INF, SECONDS_FLOPS
    )
    method = build_method("fedhera_paper", {"train_reserve": 0.0, "rank_cap": 128, **options})
    spectrum = {layer.name: sigma for layer in shape.layers}
    (plan,) = method.allocate(spectrum, [budget], paper_prices(shape), 0)
    return shape, published, plan


@pytest.mark.parametrize("model", PUBLISHED)
@pytest.mark.parametrize("tier", TIERS)
def test_published_budgets_buy_the_ranks_of_their_tier(model, tier):
    """With one spectrum in every layer the mean rank, weighed by width, is the tier's times the safety."""
    trained, received = TIERS[tier]
    shape, published, plan = tier_plan(model, tier, 0.97 ** np.arange(128))
    widths = np.array([layer.d_in + layer.d_out for layer in shape.layers])
    total, units = np.array(plan.total), unit_sum(shape)
    assert 2 * float(widths @ total) <= published.download_bytes
    assert float(widths @ total) / units == pytest.approx(1.1 * received, rel=2e-3)
    assert 1.7e-7 * float(widths @ np.array(plan.trained)) <= published.seconds
    assert float(widths @ np.array(plan.trained)) / units == pytest.approx(1.1 * trained, rel=1.5e-2)


GOLDEN = {
    "tinyllama-1.1b": {2304: (2972, 1036), 4096: (2552, 616), 7680: (3168, 264)},
    "llama-3.2-3b": {4096: (3628, 1164), 6144: (3248, 784), 11264: (4032, 336)},
    "llama-2-7b": {8192: (7552, 1920), 15104: (4638, 414)},
    "mistral-7b": {5120: (4416, 1600), 8192: (3905, 1089), 18432: (4547, 323)},
}
"""Model -> width of a layer -> columns received and trained over all layers of that width, medium tier."""


@pytest.mark.parametrize("model", GOLDEN)
def test_golden_plans_of_the_medium_tier(model):
    shape, _, plan = tier_plan(model, "medium", 0.97 ** np.arange(128))
    found = {}
    count = {}
    for layer, total, trained in zip(shape.layers, plan.total, plan.trained, strict=True):
        width = layer.d_in + layer.d_out
        received, learned = found.get(width, (0, 0))
        found[width] = received + total, learned + trained
        count[width] = count.get(width, 0) + 1
    assert found == GOLDEN[model]
    widths = sorted(found)
    for narrow, wide in pairwise(widths):  # energies fall by 0.97^2 per column: equal density at the margin
        apart = found[narrow][0] / count[narrow] - found[wide][0] / count[wide]
        assert apart == pytest.approx(np.log(wide / narrow) / (-2 * np.log(0.97)), abs=1.0)


def test_the_published_memory_never_binds():
    shape = catalogue_shape("llama-2-7b")
    assert 7 * unit_sum(shape) * 3837 <= 64_000 * MIB < 7 * unit_sum(shape) * 3838


def test_training_lora_b_alone_costs_its_share_of_a_column():
    shape = catalogue_shape("llama-2-7b")
    whole = paper_prices(shape)
    half = build_method("ffa_lora", {}).charge(whole)
    share = np.array([layer.d_out / (layer.d_in + layer.d_out) for layer in shape.layers])
    for name in ("down_bytes", "up_bytes", "train_memory", "train_flops"):
        assert getattr(half, name) == pytest.approx(getattr(whole, name) * share)


def test_the_settings_deal_out_all_devices():
    assert all(sum(shares.values()) == pytest.approx(1.0) for shares in SETTINGS.values())


def test_plans_of_a_full_budget_follow_the_order_of_energy_per_byte():
    shape, _, plan = tier_plan("tinyllama-1.1b", "high", 0.9 ** np.arange(128))
    by_width = {}
    for layer, total in zip(shape.layers, plan.total, strict=True):
        by_width.setdefault(layer.d_in + layer.d_out, []).append(total)
    means = [np.mean(by_width[width]) for width in sorted(by_width)]
    assert means == sorted(means, reverse=True)
    assert isinstance(plan, RankPlan)
