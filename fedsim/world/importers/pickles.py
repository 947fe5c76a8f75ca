"""How is a pickle read without running anything that it names? Numbers, texts, lists and dicts only.

A pickle is a program. This reader looks at every instruction before one is carried out, and refuses the file
by the name of what it must not do. The two NumPy names that stand for a scalar lead to the decoders below; no
function of any library is ever looked up.
"""

import io
import pickle
import pickletools
import struct
from pathlib import Path
from typing import Any

from fedsim.errors import TraceError
from fedsim.world.importers.text import opened

MAX_BYTES = 256 << 20
_MAX_OPCODES = 60_000_000
_PLAIN_TEXT = """
    PROTO FRAME STOP MARK
    NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
    BINBYTES SHORT_BINBYTES BINBYTES8
    EMPTY_LIST APPEND APPENDS LIST EMPTY_DICT DICT SETITEM SETITEMS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3
    PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET
    GLOBAL STACK_GLOBAL REDUCE BUILD
"""
_PLAIN = frozenset(_PLAIN_TEXT.split())
_MEMO = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))
_CODES = {"f8": "d", "f4": "f", "i8": "q", "i4": "i", "i2": "h", "u8": "Q", "u4": "I", "u2": "H", "b1": "?"}
_ADMITTED = "numbers, strings, lists, dicts and numpy scalars"
_WAY_OUT = "do not open this file elsewhere either; get the data from its publisher, or as JSON"


class _Refused(Exception):  # noqa: N818 - it never leaves this file
    """Carries what was refused."""


class _Type:
    """Stands for ``numpy.dtype``: element type and byte order of a scalar."""

    __slots__ = ("code", "order")

    def __init__(self, code: object) -> None:
        if not isinstance(code, str) or code.lstrip("<>=|") not in _CODES:
            raise _Refused(f"numpy.dtype({code!a})")
        self.code = _CODES[code.lstrip("<>=|")]
        self.order = "<"

    def __setstate__(self, state: object) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) >= 2 else None
        if order not in ("<", ">", "|", "="):
            raise _Refused("numpy.dtype with an unknown byte order")
        self.order = ">" if order == ">" else "<"


class _Function:
    """A callable that the pickle cannot alter: it has no attributes and accepts no state."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        raise _Refused("a changed function")


class _MakeType(_Function):
    __slots__ = ()

    def __call__(self, code: object = None, *_: object) -> _Type:
        return _Type(code)


class _MakeScalar(_Function):
    __slots__ = ()

    def __call__(self, kind: object = None, raw: object = None, *_: object) -> float:
        data = raw.encode("latin-1", "replace") if isinstance(raw, str) else raw
        if not isinstance(kind, _Type) or not isinstance(data, bytes):
            raise _Refused("numpy scalar of something that is no number")
        if len(data) != struct.calcsize(kind.order + kind.code):
            raise _Refused("numpy scalar of the wrong size")
        value: float = struct.unpack(kind.order + kind.code, data)[0]
        return value


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "dtype"):
            return _MakeType()
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "scalar":
            return _MakeScalar()
        raise _Refused(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused(f"the persistent reference {pid!a}")


def read_pickle(path: Path) -> Any:
    """Read a pickle of plain values.

    Raises:
        TraceError: If the file is too large, broken, or wants anything but plain values; it is named.
    """
    with opened(path) as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise _error(path, 0, "a pickle of at most 256 MiB", "a larger one", "convert it to JSON first")
    _inspect(path, data)
    try:
        return _Unpickler(io.BytesIO(data), encoding="latin-1").load()
    except _Refused as refused:
        raise _error(path, 0, _ADMITTED, str(refused), _WAY_OUT) from None
    except Exception as error:  # noqa: BLE001 - a broken pickle fails in any way it likes
        found = f"{type(error).__name__}: {error}"
        raise _error(path, 0, "a whole pickle", found, "check the download") from None


def _inspect(path: Path, data: bytes) -> None:
    """Look at each instruction; nothing is carried out."""
    seen = 0
    try:
        for opcode, argument, position in pickletools.genops(data):
            seen += 1
            name = opcode.name
            if name not in _PLAIN:
                raise _error(path, position or 0, _ADMITTED, f"the instruction {name}", _WAY_OUT)
            if name == "GLOBAL":
                _check_global(path, position or 0, str(argument))
            # A place far beyond what was stored would reserve memory for all places before it.
            if name in _MEMO and int(argument or 0) > seen:
                raise _error(path, position or 0, "a place in order", f"place {argument}", _WAY_OUT)
            if seen > _MAX_OPCODES:
                raise _error(path, position or 0, "a smaller pickle", "a larger one", "convert it to JSON")
    except (ValueError, UnicodeDecodeError, struct.error) as error:
        raise _error(path, 0, "a whole pickle", str(error), "check the format and the download") from None


def _check_global(path: Path, position: int, argument: str) -> None:
    module, _, name = argument.partition(" ")
    try:
        _Unpickler(io.BytesIO(b"")).find_class(module, name)
    except _Refused as refused:
        raise _error(path, position, _ADMITTED, str(refused), _WAY_OUT) from None


def _error(path: Path, position: int, expected: str, found: str, way_out: str) -> TraceError:
    shown = ascii(found)[1:-1][:80]
    return TraceError(f'{path}: byte {position}: pickle: expected {expected}, found "{shown}"; {way_out}')
