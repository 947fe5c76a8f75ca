import datetime as dt
import os
import pickle
import struct

import numpy as np
import pytest

from fedsim.errors import TraceError
from fedsim.world.importers import pickles
from fedsim.world.importers.pickles import read_pickle


class Calls:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def refused(tmp_path, data):
    path = tmp_path / "hostile.pkl"
    path.write_bytes(data)
    with pytest.raises(TraceError) as caught:
        read_pickle(path)
    assert str(caught.value).startswith(f"{path}: byte ")
    return str(caught.value)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_come_through(tmp_path, protocol):
    content = {
        1: {"active": [1, 2.5, 2**70], "model": "Pixel é", "none": None, "flag": True, "pair": (1, "x")}
    }
    path = tmp_path / "plain.pkl"
    path.write_bytes(pickle.dumps(content, protocol))
    assert read_pickle(path) == content


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize(
    "scalar",
    [np.float64(2.5), np.float32(0.5), np.int64(-3), np.uint16(9), np.bool_(True), np.array(7.0, ">f8")[()]],
)
def test_numpy_scalars_come_through(tmp_path, module, protocol, scalar):
    path = tmp_path / "scalar.pkl"
    data = pickle.dumps([scalar, scalar], protocol)
    found = b"numpy._core.multiarray" if b"numpy._core.multiarray" in data else b"numpy.core.multiarray"
    if protocol == 3:  # the name ends in a line feed there; later protocols count its bytes
        data = data.replace(found, module)
    path.write_bytes(data)
    assert read_pickle(path) == [scalar, scalar]


@pytest.mark.parametrize("protocol", range(6))
def test_a_command_is_refused_by_name_and_not_run(tmp_path, protocol):
    mark = tmp_path / "ran"
    message = refused(tmp_path, pickle.dumps(Calls(os.system, f"touch {mark}"), protocol))
    assert f"{os.system.__module__}.system" in message
    assert not mark.exists()


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (pickle.dumps(Calls(eval, "1"), 2), "__builtin__.eval"),
        (pickle.dumps(Calls(eval, "1"), 4), "builtins.eval"),
        (pickle.dumps(dt.date(2020, 1, 1)), "datetime"),
        (pickle.dumps(np.zeros(3)), "numpy"),
        (pickle.dumps(np.dtype([("a", "f8")])), "numpy.dtype"),
        (pickle.dumps(np.dtype("O")), "numpy.dtype"),
        (b"cposix\nsystem\n(S'true'\ntR.", "posix.system"),
        (b"(S'true'\niposix\nsystem\n.", "INST"),
        (b"(cposix\nsystem\nS'true'\no.", "posix.system"),
        (b"\x80\x02cnumpy\ndtype\n)\x81.", "NEWOBJ"),
        (b"\x80\x02Phello\n.", "PERSID"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x04\x8c\x05numpy\x8c\x05array\x93.", "numpy.array"),
        # A state for one of the stand-ins would change what it does.
        (b"\x80\x02cnumpy.core.multiarray\nscalar\n}X\x01\x00\x00\x00aK\x01sb.", "a changed function"),
        (b"\x80\x02cnumpy.core.multiarray\nscalar\nK\x01K\x02\x86R.", "no number"),
    ],
)
def test_anything_but_plain_values_is_refused_by_name(tmp_path, data, named):
    assert named in refused(tmp_path, data)


def test_a_scalar_of_the_wrong_size_is_refused(tmp_path):
    data = (
        pickle.dumps(np.float64(2.5), 3)
        .replace(struct.pack("<d", 2.5), b"\0" * 7)
        .replace(b"C\x08", b"C\x07")
    )
    assert "wrong size" in refused(tmp_path, data)


def test_a_store_far_away_reserves_no_memory(tmp_path):
    data = b"\x80\x02K\x01r" + struct.pack("<I", 2**31 - 1) + b"."
    assert "a place in order" in refused(tmp_path, data)


@pytest.mark.parametrize(
    "data", [b"", b"\x80", b"\x80\x04", b"xyz", b"\x80\x03}q\x00(K\x01", b"\x80\x0a.", b"."]
)
def test_a_broken_pickle_is_refused(tmp_path, data):
    assert "a whole pickle" in refused(tmp_path, data)


def test_a_length_beyond_the_file_is_refused(tmp_path):
    assert "a whole pickle" in refused(tmp_path, b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"x.")


def test_a_large_pickle_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pickles, "MAX_BYTES", 10)
    assert "a pickle of at most 256 MiB" in refused(tmp_path, pickle.dumps(list(range(100))))


def test_a_hostile_file_never_becomes_an_import(refusal, written_file, tmp_path):
    mark = tmp_path / "ran"
    path = written_file(pickle.dumps({1: Calls(os.system, f"touch {mark}")}), "client_behave_trace")
    for name in ("fedscale", "auto"):
        message = refusal(name, path)
        assert "system" in message
        assert "numbers, strings, lists, dicts and numpy scalars" in message
    assert not mark.exists()
