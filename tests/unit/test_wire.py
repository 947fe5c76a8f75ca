import pytest

from fedsim.wire import SCALE_BYTES, WIRE_DTYPES, column_bytes, vector_bytes


@pytest.mark.parametrize(
    ("dtype", "size", "expected"),
    [
        ("float32", 10, 40),
        ("float16", 10, 20),
        ("bfloat16", 10, 20),
        ("int8", 10, 10 + 4),
        ("int4", 10, 5 + 4),
        ("int4", 11, 6 + 4),
        ("int4", 1, 1 + 4),
        ("float32", 0, 0),
    ],
)
def test_bytes_of_one_vector(dtype, size, expected):
    assert vector_bytes(size, dtype) == expected


@pytest.mark.parametrize("dtype", WIRE_DTYPES)
def test_a_column_is_its_two_vectors(dtype):
    assert column_bytes(11, 5, dtype) == vector_bytes(11, dtype) + vector_bytes(5, dtype)
    assert column_bytes(11, 5, dtype) == column_bytes(5, 11, dtype)


def test_a_column_of_llama_width_costs_what_its_numbers_cost():
    assert column_bytes(4096, 4096, "bfloat16") == 2 * 8192
    assert column_bytes(4096, 4096, "int8") == 8192 + 2 * SCALE_BYTES
    prices = [column_bytes(4096, 11008, dtype) for dtype in ("float32", "float16", "int8", "int4")]
    assert prices == sorted(prices, reverse=True)
