import pytest

from fedsim.units import EXPECTED, format_bytes, format_seconds, parse_quantity


@pytest.mark.parametrize(
    ("text", "quantity", "value"),
    [
        ("30 MB", "bytes", 30e6),
        ("2 GiB", "bytes", 2 * 2**30),
        ("512KiB", "bytes", 512 * 1024),
        ("7", "bytes", 7.0),
        (8, "bytes", 8.0),
        ("2 Mbit/s", "bits per second", 2e6),
        ("2 Mbps", "bits per second", 2e6),
        ("1.5 kbit/s", "bits per second", 1500.0),
        ("90 s", "seconds", 90.0),
        ("15 min", "seconds", 900.0),
        (".5 h", "seconds", 1800.0),
        ("250 ms", "seconds", 0.25),
        ("7 d", "seconds", 604_800.0),
        ("1e3 s", "seconds", 1000.0),
        (" 90 s ", "seconds", 90.0),
        ("100 GFLOP/s", "FLOP/s", 100e9),
        ("1.5 TFLOPS", "FLOP/s", 1.5e12),
    ],
)
def test_quantities_in_base_units(text, quantity, value):
    assert parse_quantity(text, quantity) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "quantity"),
    [
        ("15 minits", "seconds"),
        ("2 Mb", "bits per second"),
        ("2 MB", "bits per second"),
        ("30 Mbit/s", "bytes"),
        ("30 mb", "bytes"),
        ("2 Mibit/s", "bits per second"),
        ("", "bytes"),
        ("many", "bytes"),
        ("1 2 s", "seconds"),
        ("-3 s", "seconds"),
        ("inf s", "seconds"),
        ("nan", "seconds"),
        ("1e s", "seconds"),
    ],
)
def test_refusals_name_an_example_and_what_was_found(text, quantity):
    with pytest.raises(ValueError, match="expected") as caught:
        parse_quantity(text, quantity)
    assert str(caught.value) == f'expected {EXPECTED[quantity]}, got "{text}"'


def test_truth_values_are_no_quantity():
    with pytest.raises(ValueError, match="got true"):
        parse_quantity(True, "seconds")


@pytest.mark.parametrize("quantity", EXPECTED)
def test_every_example_in_a_message_can_be_read(quantity):
    examples = EXPECTED[quantity].split('"')[1::2]
    assert examples
    assert all(parse_quantity(example, quantity) > 0 for example in examples)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2.5e6, "2.5 MB"), (3e9, "3.0 GB"), (4.2e12, "4.2 TB")],
)
def test_bytes_for_people(size_bytes, text):
    assert format_bytes(size_bytes) == text


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [(0, "00:00:00"), (59.6, "00:01:00"), (3_661, "01:01:01"), (97_445, "1d 03:04:05")],
)
def test_durations_for_people(duration_s, text):
    assert format_seconds(duration_s) == text
