"""Whatever a mutated file says, an import ends with a clean load or one clear error; nothing else."""

import json
import pickle
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fedsim.errors import TraceError
from fedsim.world.formats.read import read_trace
from fedsim.world.importers.run import import_published

ONLINE = {1: {"duration": 9, "active": [0, 50], "inactive": [10, 60], "finish_time": 86400, "model": "X"}}
CAPACITY = {1: {"computation": 44.0, "communication": 2000.0}}
SPEED = {"down_u": 1000.0, "down_sigma": 10.0, "up_u": 500.0, "up_sigma": 100.0}
SEEDS = {
    "stunner": b"u 1 1402358400000 2 3600000 59000 82741000\nv 0 1402358400000 -4 86400000\n",
    "fedscale": json.dumps({str(k): v for k, v in (ONLINE | {2: CAPACITY[1]}).items()}).encode(),
    "flash": json.dumps(
        {
            "a": {"messages": "2020-01-31 08:00:00\twifi\n2020-01-31 08:10:00\tscreen_lock\n"},
            "b": SPEED,
        }
    ).encode(),
    "mahimahi": b"0\n0\n7\n1500\n2600\n",
    "hsdpa": json.dumps([{"duration_ms": 1000, "bandwidth_kbps": 5, "latency_ms": 100}] * 3).encode(),
    "ghent": b"1453121790686 262 51.03 3.71 2391442 1000\n1453121791686 1262 51.03 3.71 2391442 1000\n",
    "ucc5g": b"Timestamp,DL_bitrate\n2019.12.14_10.00.00,5\n2019.12.14_10.00.01,-\n2019.12.14_10.00.02,7\n",
    "nyu_mets": b"1.5,Mbits/sec\n20,Kbits/sec\n",
    "lumos5g": b"1.0 308.0\n2.0 76.5\n3.0 12\n",
    "pensieve": b"180.0\t0.46\n185.0\t1.1\n190.0\t2.7\n",
    "oboe": b"15.0 3168.6\n474.0 3168.6\n514.0 3183.2\n905.0 3183.2\n",
}
PICKLES = [pickle.dumps(ONLINE, protocol) for protocol in range(6)] + [pickle.dumps(CAPACITY, 4)]
TOKENS = st.sampled_from(
    [
        b"nan",
        b"inf",
        b"-1",
        b"1e999",
        b"",
        b"\0",
        b"\xff",
        b"\n",
        b" ",
        b",",
        b"0",
        b"9" * 30,
        b"{",
        b"[",
        b'"',
    ]
)


@st.composite
def mutated(draw, data):
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 12)))
        new = draw(TOKENS | st.binary(max_size=6) | st.just(data[end : end + 20]))
        data = data[:start] + new + data[end:]
    return data


def outcome(name, path, out):
    """Import a file; return the message of a refusal, or nothing."""
    try:
        _, written = import_published(name, [path], out)
    except TraceError as error:
        return str(error)
    for file in written.rows:
        read_trace(out / file)
    return ""


def check(name, data):
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "input.down", Path(folder) / "out"
        path.write_bytes(data)
        message = outcome(name, path, out)
        left = sorted(entry.name for entry in Path(folder).iterdir())
        assert left == (["input.down"] if message else ["input.down", "out"])
        assert not message or ": expected " in message
        assert "\n" not in message


@pytest.mark.parametrize("name", SEEDS)
def test_the_unmutated_file_is_imported(name, convert, written_file):
    written, _ = convert(name, written_file(SEEDS[name], "input.down"))
    assert sum(written.rows.values()) > 0


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
@pytest.mark.parametrize("name", SEEDS)
@pytest.mark.parametrize("given_name", ["own", "auto"])
def test_a_mutated_file_loads_or_is_refused(name, given_name, data):
    check(name if given_name == "own" else "auto", data.draw(mutated(SEEDS[name])))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(PICKLES).flatmap(mutated))
@example(b"\x80\x02}q\x00.")
@example(b"\x80\x02]q\x00h\x00a.")
def test_a_mutated_pickle_loads_or_is_refused(data):
    check("fedscale", data)
