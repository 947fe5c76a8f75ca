"""Who shares a pass by default: looked up, and one by one wherever nothing was measured."""

import pytest

from fedsim.learn.batching import TABLE, batch_clients


@pytest.mark.parametrize("shape", TABLE)
def test_every_range_of_the_table_is_reached_at_its_end(shape):
    assert batch_clients(shape.num_params, shape.tokens, shape.device) == shape.clients


def test_what_was_never_measured_is_trained_one_by_one():
    largest = max(shape.num_params for shape in TABLE)
    assert batch_clients(largest + 1, 1, "cpu") == 1
    assert batch_clients(1, 10**9, "cpu") == 1
    assert batch_clients(1, 1, "abacus") == 1


def test_a_smaller_shape_never_shares_with_fewer():
    for device in {shape.device for shape in TABLE}:
        sizes = sorted({shape.num_params for shape in TABLE})
        for tokens in {shape.tokens for shape in TABLE}:
            found = [batch_clients(size, tokens, device) for size in sizes]
            assert found == sorted(found, reverse=True)
