"""What broken disks, careless hands and attackers do to files; and a watch over what reading them does."""

import json
import sys
from contextlib import contextmanager
from pathlib import Path

WORDS = (
    "",
    "null",
    "~",
    "-1",
    "0",
    "1e999",
    "-1e308",
    ".nan",
    ".inf",
    "99999999999999999999999",
    "0x1f",
    "1_000",
    "true",
    "2026-11-23",
    "12:30:59",
    "5 s",
    "-5 s",
    "1e400 s",
    "3 parsecs",
    "[]",
    "{}",
    "[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]",
    "../../../../etc/passwd",
    "/dev/zero",
    "/dev/stdin",
    "~root/x",
    "${HOME}",
    "$(touch PWNED)",
    "{{ 7 * 7 }}",
    '!!python/object/apply:os.system ["touch PWNED"]',
    "!!binary aGk=",
    "!include /etc/passwd",
    "&a [*a]",
    "*nobody",
    "<script>alert(1)</script>",
    "a" * 3000,
    "\x00",
    "\u202e",
    "é",
    "|",
    ">-",
    "? x",
    "- x",
    "%YAML 9.9",
    "@x",
    "`x`",
    "'",
    '"',
)
VALUES = (
    None,
    True,
    -1,
    0,
    1e308,
    10**40,
    "",
    "x",
    "../../x",
    "<script>alert(1)</script>",
    [],
    {},
    [1, "x", None],
    {"a": {"b": []}},
    "9" * 400,
    float("nan"),
    float("inf"),
)


def mutated_yaml(text, rng):
    """Change a scenario as people and attackers do; bytes."""
    lines = text.splitlines()
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        at = rng.randrange(len(lines))
        kind = rng.randrange(9)
        if kind <= 3 and ":" in lines[at]:
            head, _, _ = lines[at].partition(":")
            lines[at] = f"{head}: {rng.choice(WORDS)}"
        elif kind == 4:
            lines.insert(at, lines[rng.randrange(len(lines))])
        elif kind == 5 and len(lines) > 1:
            del lines[at]
        elif kind == 6:
            lines[at] = " " * rng.randrange(6) + lines[at].lstrip()
        elif kind == 7:
            lines.insert(at, f"{rng.choice(WORDS)}: {rng.choice(WORDS)}")
        else:
            lines[at] = lines[at].replace(rng.choice("aeiou:- "), rng.choice("aeiou:-{}[]&*!\t#"), 1)
    data = "\n".join(lines).encode("utf-8", "surrogatepass")
    return bent(data, rng) if rng.random() < 0.2 else data


def bent(data, rng):
    """Flip, cut, repeat or overwrite bytes."""
    if not data:
        return b"\x00"
    at = rng.randrange(len(data))
    kind = rng.randrange(5)
    if kind == 0:
        return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
    if kind == 1:
        return data[:at]
    if kind == 2:
        return data[:at] + data[at : at + 40] * rng.randrange(2, 50) + data[at:]
    if kind == 3:
        return data[:at] + bytes(rng.randrange(256) for _ in range(8)) + data[at + 8 :]
    return data[:at] + data[at + 1 + rng.randrange(60) :]


def mutated_run(directory, rng):
    """Damage a file or two of a run."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        path = rng.choice(files)
        kind = rng.randrange(8)
        if not path.is_file() or path.is_symlink():
            continue
        if kind <= 2 and path.suffix in {".json", ".jsonl"}:
            path.write_bytes(reworded(path.read_bytes(), rng))
        elif kind == 3:
            path.unlink()
        elif kind == 4:
            path.unlink()
            rng.choice((path.mkdir, lambda path=path: path.symlink_to("/etc/hostname")))()
        elif kind == 5:
            path.write_bytes(rng.choice((b"", b"\n", b"[]", b"{}", b"null\n", b"[" * 100_000, b"\xff\xfe")))
        else:
            path.write_bytes(bent(path.read_bytes(), rng))


def reworded(data, rng):
    """Put a hostile value, or none, somewhere into JSON or one of its lines."""
    lines = data.split(b"\n") if data.count(b"\n") and not data.startswith(b"{\n") else [data]
    at = rng.randrange(len(lines))
    try:
        value = json.loads(lines[at])
    except (ValueError, RecursionError):
        return data
    lines[at] = json.dumps(_reworded(value, rng)).encode()
    return b"\n".join(lines)


def _reworded(value, rng):
    if not value or rng.random() < 0.25 or not isinstance(value, dict | list):
        return rng.choice(VALUES)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = rng.choice(keys)
    if rng.random() < 0.2:
        del value[key]
    else:
        value[key] = _reworded(value[key], rng)
    return value


class _Watch:
    """Notes whatever would run code, reach out, or write outside of a folder."""

    def __init__(self):
        self.root = None
        self.seen = []

    def __call__(self, event, arguments):
        if self.root is None:
            return
        if event in _FORBIDDEN:
            self.seen.append((event, arguments))
        elif event in _CHANGES or (event == "open" and arguments[0] is not None and _writes(arguments)):
            self._note(event, arguments[0])

    def _note(self, event, path):
        if isinstance(path, int):
            return
        root, self.root = self.root, None  # resolving a path must not watch itself
        where = Path(path.decode() if isinstance(path, bytes) else str(path)).resolve()
        if not where.is_relative_to(root):
            self.seen.append((event, str(where)))
        self.root = root


_FORBIDDEN = {
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "socket.connect",
    "socket.getaddrinfo",
    "pickle.find_class",
    "ctypes.dlopen",
    "urllib.Request",
}
_CHANGES = {
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
}
_WATCH = _Watch()
_INSTALLED = []


def _writes(arguments):
    mode, flags = arguments[1], arguments[2]
    if isinstance(mode, str):
        return bool(set(mode) & set("wax+"))
    return bool(flags & 3)


@contextmanager
def watched(root):
    """Fail afterwards if anything ran code, reached out, or wrote outside of a folder."""
    if not _INSTALLED:
        sys.addaudithook(_WATCH)  # can never be taken off again, so it is installed once and sleeps
        _INSTALLED.append(True)
    _WATCH.root, _WATCH.seen = Path(root).resolve(), []
    try:
        yield
    finally:
        _WATCH.root = None
    if _WATCH.seen:
        raise AssertionError(f"not allowed here: {_WATCH.seen}")
