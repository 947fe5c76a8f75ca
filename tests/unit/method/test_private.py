"""The Gaussian mechanism on factors: what is bounded, where the noise lies, and that it is noise."""

import math

import numpy as np
import pytest
import torch

from fedsim.errors import ProtocolError
from fedsim.lora.factors import Factors, adapter_norm, dense, stack
from fedsim.method.catalogue import build_method, method_names
from fedsim.method.private import Frame, Mechanism, Noise, difference, release
from fedsim.seeds import Seeds
from tests.cohorts import SHAPES, decaying_adapter, plan, random_change, update

RANK = 6
PRIVATE = {
    "fedhera": {"rank_cap": RANK, "initial_rank": 2},
    "fedhl": {"rank_cap": RANK},
    "ffa_lora": {"rank_cap": RANK},
}


def mechanism(clip=1.0, noise=1e-9, cohort=4, seed=5):
    return Mechanism(clip, noise, cohort, seed)


def method_and_state(name, adapter=None):
    method = build_method(name, PRIVATE[name])
    return method, method.init(SHAPES, 3, adapter)


def cohort(name, scales=(1.0, 1.0)):
    made = []
    for number, scale in enumerate(scales):
        change = {
            layer: Factors(
                lora_a=pair.lora_a * (0.0 if name == "ffa_lora" else scale), lora_b=pair.lora_b * scale
            )
            for layer, pair in random_change(plan(4, 4), seed=number + 1).items()
        }
        made.append(update(number, 0, plan(4, 4), change))
    return made


def moved(method, state, released):
    return difference(method.export(released.state), method.export(state))


@pytest.mark.parametrize("name", PRIVATE)
def test_however_long_an_update_is_it_moves_the_version_by_at_most_its_share(name):
    method, state = method_and_state(name)
    for scale in (1.0, 100.0):
        released = release(mechanism(), method, state, cohort(name, (scale,)))
        assert adapter_norm(moved(method, state, released)) <= 1.0 / 4 * (1 + 1e-5)
    assert released.defence.counted[0] < 1.0


@pytest.mark.parametrize("name", PRIVATE)
def test_one_client_more_moves_the_version_by_at_most_the_clip_over_the_cohort(name):
    """The sensitivity that epsilon is computed from, before the cut to a rank."""
    method, state = method_and_state(name)
    without = release(mechanism(), method, state, cohort(name, (1.0,)))
    with_one = release(mechanism(), method, state, cohort(name, (1.0, 50.0)))
    apart = adapter_norm(difference(method.export(with_one.state), method.export(without.state)))
    assert 0.0 < apart <= 1.0 / 4 * (1 + 1e-4)


def test_an_update_inside_the_clip_is_added_with_the_planned_cohort_as_divisor():
    method, state = method_and_state("ffa_lora")
    (one,) = cohort("ffa_lora", (1e-3,))
    released = release(mechanism(clip=10.0), method, state, [one])
    for name, pair in moved(method, state, released).items():
        change = one.change[name]
        expected = change.lora_b @ state.pair[name].lora_a[: change.rank] / 4
        torch.testing.assert_close(dense(pair), expected, atol=2e-7, rtol=1e-3)


@pytest.mark.parametrize("name", PRIVATE)
def test_nobody_there_is_noise_all_the_same(name):
    method, state = method_and_state(name)
    released = release(mechanism(noise=1.0), method, state, [])
    assert adapter_norm(moved(method, state, released)) > 0.0
    assert released.defence.counted == {}


@pytest.mark.parametrize("name", PRIVATE)
def test_noise_is_a_function_of_seed_and_version(name):
    method, state = method_and_state(name)

    def noisy(seed):
        return method.export(release(mechanism(noise=1.0, seed=seed), method, state, []).state)

    for layer, pair in noisy(1).items():
        assert torch.equal(pair.lora_b, noisy(1)[layer].lora_b)
    assert adapter_norm(difference(noisy(1), noisy(2))) > 0.0


def frames(state):
    return {layer.name: (layer, Frame.of(state, layer, RANK)) for layer in SHAPES}


def test_the_noise_is_isotropic_in_a_space_that_is_known_beforehand():
    """Coordinates of many draws: right size, no correlation, nothing outside of the space."""
    _, state = method_and_state("fedhl", decaying_adapter())
    layer, frame = next(iter(frames(state).values()))
    draws = [
        dense(frame.noise(Noise(Seeds(seed), 0, 1.0), layer)).double().flatten().numpy()
        for seed in range(1500)
    ]
    matrix = np.stack(draws)
    left, right = frame.u.shape[1], frame.v.shape[1]
    dimensions = right * layer.d_out + left * (layer.d_in - right)
    assert float((matrix**2).sum(axis=1).mean()) == pytest.approx(dimensions, rel=0.02)
    values = np.linalg.svd(matrix / math.sqrt(len(draws)), compute_uv=False)
    assert int((values > 1e-3).sum()) == min(dimensions, len(draws))
    probe = np.random.default_rng(0).normal(size=(layer.d_out, layer.d_in))
    inside = dense(frame.project(_as_factors(probe))).double().flatten().numpy()
    assert float(((matrix @ inside) ** 2).mean()) == pytest.approx(float(inside @ inside), rel=0.15)


def _as_factors(matrix):
    return Factors(lora_a=torch.eye(matrix.shape[1]), lora_b=torch.tensor(matrix, dtype=torch.float32))


def test_projection_lengthens_nothing_keeps_what_is_inside_and_is_done_once():
    _, state = method_and_state("fedhl", decaying_adapter())
    for layer, frame in frames(state).values():
        any_matrix = _as_factors(np.random.default_rng(1).normal(size=(layer.d_out, layer.d_in)))
        once = frame.project(any_matrix)
        assert dense(once).norm() <= dense(any_matrix).norm() * (1 + 1e-6)
        torch.testing.assert_close(dense(frame.project(once)), dense(once), atol=1e-5, rtol=1e-5)
        noise = frame.noise(Noise(Seeds(0), 0, 1.0), layer)
        torch.testing.assert_close(dense(frame.project(noise)), dense(noise), atol=1e-5, rtol=1e-5)
        sum_of_both = stack([once, noise])
        torch.testing.assert_close(
            dense(frame.project(sum_of_both)), dense(once) + dense(noise), atol=2e-5, rtol=1e-5
        )


def test_a_client_that_is_there_twice_is_refused():
    method, state = method_and_state("fedhl")
    first, second = cohort("fedhl")
    twin = update(7, 0, plan(4, 4), second.change)
    object.__setattr__(twin, "client", first.client)
    with pytest.raises(ProtocolError, match="at most 4 updates of different clients"):
        release(mechanism(), method, state, [first, twin])
    with pytest.raises(ProtocolError, match="at most 1 updates"):
        release(mechanism(cohort=1), method, state, [first, second])


def test_alignment_is_told_of_the_released_change_only():
    """With much noise nobody agrees with what came out: the score must not see the secret sum."""
    method, state = method_and_state("fedhl", decaying_adapter())
    clear = release(mechanism(clip=10.0), method, state, cohort("fedhl", (0.1, 0.1)))
    hidden = release(mechanism(clip=10.0, noise=100.0), method, state, cohort("fedhl", (0.1, 0.1)))
    assert min(clear.alignments.values()) > 0.4
    assert max(abs(value) for value in hidden.alignments.values()) < 0.2


def test_which_methods_have_a_rule():
    assert {name for name in method_names() if build_method(name, {}).release} == set(PRIVATE)
    assert build_method("fedhera", {"tail": "returned_gated"}).release is None
    assert build_method("fedhl", {"weights": "error"}).release is None
