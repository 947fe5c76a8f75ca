import numpy as np
import pytest

from fedsim.seeds import Seeds, mix


def draws(root, *path, count=4):
    return Seeds(root).generator(*path).integers(0, 2**62, count).tolist()


def test_a_stream_is_a_pure_function_of_its_name():
    assert draws(7, "train", 3, 1) == draws(7, "train", 3, 1)
    first = Seeds(7)
    first.generator("other").random(100)
    assert first.generator("train").random() == Seeds(7).generator("train").random()


def test_streams_differ_by_seed_purpose_and_index():
    streams = [
        draws(root, purpose, index) for root in (0, 1) for purpose in ("train", "select") for index in (0, 1)
    ]
    assert len({tuple(stream) for stream in streams}) == len(streams)


def test_adding_devices_or_purposes_leaves_the_other_streams_as_they_were():
    def fleet(size, purposes):
        return {
            (purpose, device): Seeds(5).seed(purpose, device)
            for purpose in purposes
            for device in range(size)
        }

    small, large = fleet(10, ["train"]), fleet(1000, ["train", "availability"])
    assert small.items() <= large.items()
    assert len(set(large.values())) == len(large)


@pytest.mark.parametrize(
    ("one", "other"),
    [(("a", "b"), ("a/b",)), ((1,), ("1",)), (("a", 12), ("a1", 2)), ((1, 23), (12, 3)), ((), ("",))],
)
def test_names_that_look_alike_are_different_streams(one, other):
    assert Seeds(0).seed(*one) != Seeds(0).seed(*other)


def test_seeds_fit_in_63_bits_and_are_pinned():
    seeds = [Seeds(0).seed("x", index) for index in range(1000)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62  # the top bit is used
    assert Seeds(0).seed("train", 1, 2) == 2228530963389378410


def test_two_streams_are_uncorrelated():
    one, other = (Seeds(0).generator("noise", name).standard_normal(20_000) for name in ("a", "b"))
    assert abs(np.corrcoef(one, other)[0, 1]) < 4 / np.sqrt(20_000)


def test_mix_ignores_the_order_and_company_of_values():
    values = np.arange(1000)
    hashed = mix(11, values)
    assert np.array_equal(mix(11, values[::-1]), hashed[::-1])
    assert mix(11, values[5:6])[0] == hashed[5]
    assert np.array_equal(mix(11, values.reshape(10, 100)).ravel(), hashed)


def test_mix_is_one_to_one_uniform_and_depends_on_the_seed():
    values = np.arange(20_000)
    hashed = mix(11, values)
    assert len(np.unique(hashed)) == len(values)
    counts = np.bincount((hashed >> np.uint64(60)).astype(int), minlength=16)
    assert ((counts - 1250) ** 2 / 1250).sum() < 37.7  # chi-squared, 15 degrees of freedom, p = 0.001
    assert not np.any(mix(12, values) == hashed)


def test_the_lowest_hashes_under_two_seeds_are_two_cohorts():
    cohorts = [set(np.argsort(mix(Seeds(root).seed("select", 0), np.arange(200)))[:10]) for root in range(20)]
    overlaps = [len(cohorts[0] & cohort) for cohort in cohorts[1:]]
    assert max(overlaps) < 5
