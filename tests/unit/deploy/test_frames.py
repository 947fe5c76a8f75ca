import pytest

from fedsim.deploy.frames import PRELUDE_BYTES, open_frame, read_prelude, seal
from fedsim.deploy.messages import FROM_CLIENT, Received, read_message
from fedsim.deploy.parcels import pack, size_bytes, unpack
from fedsim.deploy.secret import Token, read_token
from fedsim.errors import InputError, PeerError
from fedsim.lora.codec import roundtrip_adapter
from fedsim.lora.factors import Factors
from fedsim.wire import WIRE_DTYPES
from fedsim.world.shape import LayerShape

KEY = Token(b"0123456789abcdef").key("test")
LAYERS = (LayerShape("one", 6, 4, "x"), LayerShape("two", 4, 8, "y"))


def opened(frame, key=KEY, number=0, max_head=100, max_body=100):
    prelude = read_prelude(frame[:PRELUDE_BYTES], max_head=max_head, max_body=max_body)
    return open_frame(key, number, prelude, frame[PRELUDE_BYTES:])


def test_what_is_sealed_can_be_opened():
    assert opened(seal(KEY, 0, {"kind": "x"}, b"body")) == ({"kind": "x"}, b"body")


@pytest.mark.parametrize("place", range(PRELUDE_BYTES + 12 + 4))
def test_no_bit_can_change(place):
    frame = bytearray(seal(KEY, 0, {"kind": "x"}, b"body"))
    frame[place] ^= 1
    with pytest.raises(PeerError):
        opened(bytes(frame))


def test_a_frame_counts_once_and_under_its_key():
    frame = seal(KEY, 0, {}, b"")
    for key, number in ((KEY, 1), (KEY[::-1], 0)):
        with pytest.raises(PeerError, match="tag"):
            opened(frame, key, number)


def test_sizes_are_refused_before_anything_is_read():
    frame = seal(KEY, 0, {"kind": "x" * 50}, b"b" * 50)
    with pytest.raises(PeerError, match="header of at most 10"):
        opened(frame, max_head=10)
    with pytest.raises(PeerError, match="body of at most 49"):
        opened(frame, max_body=49)


@pytest.mark.parametrize(
    "header",
    [
        {"kind": "received"},
        {"kind": "received", "assignment": -1},
        {"kind": "received", "assignment": "1"},
        {"kind": "received", "assignment": 1, "more": 1},
        {"kind": "exec", "assignment": 1},
        {"kind": "update", "assignment": 1, "ranks": {"change": [1 << 40]}, "loss": 0.0},
        {},
    ],
)
def test_only_known_messages_pass(header):
    with pytest.raises(PeerError, match="may not come"):
        read_message(FROM_CLIENT, header)


def test_a_known_message_passes():
    assert read_message(FROM_CLIENT, {"kind": "received", "assignment": 3}) == Received(assignment=3)


def adapter(torch):
    generator = torch.Generator().manual_seed(1)
    return {
        layer.name: Factors(
            lora_a=torch.randn(rank, layer.d_in, generator=generator),
            lora_b=torch.randn(layer.d_out, rank, generator=generator),
        )
        for layer, rank in zip(LAYERS, (2, 3), strict=True)
    }


@pytest.mark.parametrize("dtype", WIRE_DTYPES)
def test_a_parcel_is_what_the_codec_makes_of_it(dtype):
    import torch

    given = adapter(torch)
    ranks, body = pack({"prefix": given, "tail": {}}, LAYERS, dtype)
    assert ranks == {"prefix": [2, 3]}
    assert 0 < len(body) - size_bytes(ranks, LAYERS, dtype) < 200
    expected = roundtrip_adapter(given, dtype)
    found = unpack(ranks, body, LAYERS, dtype)["prefix"]
    for name, factors in expected.items():
        assert torch.equal(found[name].lora_a, factors.lora_a)
        assert torch.equal(found[name].lora_b, factors.lora_b)


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        ({"prefix": [2, 2]}, "bytes"),
        ({"prefix": [2]}, "2 layers"),
        ({"tail": [2, 3]}, "parts"),
    ],
)
def test_a_parcel_that_does_not_fit_its_header_is_refused(ranks, message):
    import torch

    _, body = pack({"prefix": adapter(torch)}, LAYERS, "float16")
    with pytest.raises(PeerError, match=message):
        unpack(ranks, body, LAYERS, "float16")
    with pytest.raises(PeerError, match="safetensors"):
        unpack({"prefix": [2, 3]}, body[:-1], LAYERS, "float16")


def test_a_token_is_made_once_and_kept_private(tmp_path):
    path = tmp_path / "token"
    with pytest.raises(InputError, match="cannot be read"):
        read_token(path)
    made = read_token(path, make=True)
    assert read_token(path, make=True) == made
    assert len(made.text) == 64
    assert made.text.decode() not in repr(made)
    path.chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"):
        read_token(path)


def test_a_short_token_is_refused(tmp_path):
    path = tmp_path / "token"
    path.write_text("short")
    path.chmod(0o600)
    with pytest.raises(InputError, match="at least 16"):
        read_token(path)
