import pytest
import torch

from fedsim.errors import TrainingError
from fedsim.lora.codec import adapter_bytes, decode, encode, roundtrip, roundtrip_adapter
from fedsim.lora.factors import Factors, zeros
from fedsim.wire import WIRE_DTYPES, column_bytes
from tests.cohorts import factors


@pytest.mark.parametrize("dtype", WIRE_DTYPES)
@pytest.mark.parametrize(("d_in", "d_out", "rank"), [(8, 6, 3), (7, 5, 2), (1, 1, 1), (9, 4, 0)])
def test_the_encoded_length_is_the_price(dtype, d_in, d_out, rank):
    pair = factors(d_in, d_out, rank, seed=1)
    assert len(encode(pair, dtype)) == rank * column_bytes(d_in, d_out, dtype)
    assert adapter_bytes({"a": pair}, dtype) == rank * column_bytes(d_in, d_out, dtype)


@pytest.mark.parametrize("dtype", WIRE_DTYPES)
def test_decoding_gives_what_roundtrip_promises_bit_for_bit(dtype):
    pair = factors(7, 5, 3, seed=1)
    decoded, promised = decode(encode(pair, dtype), 7, 5, dtype), roundtrip(pair, dtype)
    assert torch.equal(decoded.lora_a, promised.lora_a)
    assert torch.equal(decoded.lora_b, promised.lora_b)
    assert torch.equal(roundtrip_adapter({"a": pair}, dtype)["a"].lora_a, promised.lora_a)


@pytest.mark.parametrize("dtype", WIRE_DTYPES)
def test_zero_stays_exactly_zero(dtype):
    decoded = decode(encode(zeros(7, 5, 3), dtype), 7, 5, dtype)
    assert not decoded.lora_a.any()
    assert not decoded.lora_b.any()


@pytest.mark.parametrize(
    ("dtype", "bound"),
    [("float32", 0.0), ("float16", 2**-11), ("bfloat16", 2**-8), ("int8", 1 / 254), ("int4", 1 / 14)],
)
def test_the_rounding_error_stays_within_the_format(dtype, bound):
    pair = factors(64, 32, 4, seed=1)
    error = (roundtrip(pair, dtype).lora_a - pair.lora_a).abs()
    largest = pair.lora_a.abs().amax(dim=1, keepdim=True)
    assert bool((error <= bound * largest * (1 + 1e-5)).all())
    assert (error.max() > 0) == (dtype != "float32")


def test_columns_follow_one_another_so_that_a_stream_can_stop_between_them():
    pair = factors(7, 5, 3, seed=1)
    size = column_bytes(7, 5, "int4")
    two = decode(encode(pair, "int4")[: 2 * size], 7, 5, "int4")
    assert torch.equal(two.lora_a, roundtrip(pair, "int4").lora_a[:2])


def test_an_unfinished_column_is_refused():
    payload = encode(factors(7, 5, 3, seed=1), "int8")
    with pytest.raises(TrainingError, match="cut inside a column"):
        decode(payload[:-1], 7, 5, "int8")


@pytest.mark.parametrize("dtype", WIRE_DTYPES)
def test_what_is_not_finite_is_refused(dtype):
    pair = factors(7, 5, 2, seed=1)
    pair.lora_a[0, 0] = float("nan")
    with pytest.raises(TrainingError, match="finite"):
        encode(pair, dtype)


def test_a_number_beyond_the_format_is_refused():
    pair = Factors(torch.full((1, 3), 1e6), torch.ones(2, 1))
    with pytest.raises(TrainingError, match="wider wire_dtype"):
        encode(pair, "float16")
