"""What does the beginning of a file look like? Tests by content for each published format."""

import math
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from fedsim.world.importers.text import opened

_HEAD_BYTES = 1 << 16
_MAX_LINES = 400
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_NYU = re.compile(r"[0-9.eE+-]+,\s*[KMG]?bits/sec")
_STUNNER = re.compile(r"\S+\s+[01]\s+[0-9]{12,13}\s+-?[0-9]{1,2}(\s+[0-9]+)+")
_LATENCY = re.compile(r'"latency_ms"\s*:\s*([0-9]+(?:\.[0-9]+)?)')
_EPOCH_MS = 1e11
Pairs = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Head:
    """The first 64 KiB of a file.

    Args:
        data: Bytes.
        lines: Whole lines of it that are not blank.
    """

    data: bytes
    lines: tuple[str, ...]

    @property
    def is_object(self) -> bool:
        """Whether it begins like a JSON object."""
        return self.data.lstrip()[:1] == b"{"

    def pairs(self) -> Pairs:
        """Return the lines as two numbers each; empty if they are anything else or the time goes back."""
        rows = [line.split() for line in self.lines]
        if any(len(row) != 2 or not all(map(_NUMBER.fullmatch, row)) for row in rows):
            return []
        pairs = [(float(time), float(rate)) for time, rate in rows]
        finite = all(math.isfinite(time) and math.isfinite(rate) and time >= 0 for time, rate in pairs)
        return pairs if finite and all(a[0] <= b[0] for a, b in pairwise(pairs)) else []


def read_head(path: Path) -> Head:
    """Read the beginning of a file.

    Raises:
        TraceError: If it is not there or cannot be read.
    """
    with opened(path) as stream:
        data = stream.read(_HEAD_BYTES).removeprefix(b"\xef\xbb\xbf")
        whole = not stream.read(1)
    text = data.decode("utf-8", "replace").replace("\r\n", "\n")
    lines = text.split("\n")[: None if whole else -1]
    # A single line longer than what is looked at still shows its first columns.
    shown = lines or [text.rpartition(" ")[0]]
    return Head(data, tuple(line.strip() for line in shown[:_MAX_LINES] if line.strip()))


def is_stunner(head: Head) -> bool:
    """User, state, milliseconds since 1970, hours, lengths."""
    return bool(head.lines) and all(_STUNNER.fullmatch(line) for line in head.lines)


def is_fedscale(head: Head) -> bool:
    """A pickle, or JSON with the keys of FedScale."""
    pickled = head.data[:1] == b"\x80" and head.data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    keys = (b'"inactive"', b'"computation"', b'"finish_time"')
    return pickled or (head.is_object and any(key in head.data for key in keys))


def is_flash(head: Head) -> bool:
    """JSON with the keys of FLASH."""
    return head.is_object and (b'"messages"' in head.data or b'"down_sigma"' in head.data)


def is_mahimahi(head: Head) -> bool:
    """One whole number per line, never falling."""
    if not head.lines or not all(re.fullmatch("[0-9]{1,15}", line) for line in head.lines):
        return False
    return all(a <= b for a, b in pairwise([int(line) for line in head.lines]))


def is_nyu_mets(head: Head) -> bool:
    """A value and its unit per line."""
    return bool(head.lines) and all(_NYU.fullmatch(line) for line in head.lines)


def is_ucc5g(head: Head) -> bool:
    """A header of G-NetTrack."""
    names = [name.strip() for name in head.lines[0].split(",")] if head.lines else []
    return "Timestamp" in names and "DL_bitrate" in names


def _is_sabre(head: Head, latency_ms: float) -> bool:
    """Sabre's JSON; the constant latency that it put in tells its two collections apart."""
    if head.data.lstrip()[:1] != b"[" or b'"bandwidth_kbps"' not in head.data:
        return False
    latencies = {float(text) for text in _LATENCY.findall(head.data.decode("utf-8", "replace"))}
    known = latencies <= {20.0, 100.0} and len(latencies) == 1
    return latency_ms in latencies if known else True


def _is_log(head: Head, *, in_ms: bool) -> bool:
    """Lines of six numbers; Ghent counts milliseconds since 1970, Norway seconds."""
    rows = [line.split() for line in head.lines]
    if not rows or any(len(row) != 6 or not all(map(_NUMBER.fullmatch, row)) for row in rows):
        return False
    return all((float(row[0]) > _EPOCH_MS) == in_ms for row in rows)


def is_hsdpa(head: Head) -> bool:
    """Sabre's JSON, the original log, or fine rates each second."""
    pairs = head.pairs()
    fine = _is_one_hertz(pairs) and not _is_coarse(pairs) and all(rate <= 100 for _, rate in pairs)
    return _is_sabre(head, 100.0) or _is_log(head, in_ms=False) or fine


def is_ghent(head: Head) -> bool:
    """Sabre's JSON or the original log."""
    return _is_sabre(head, 20.0) or _is_log(head, in_ms=True)


def is_lumos5g(head: Head) -> bool:
    """Whole or half Mbit/s each second."""
    pairs = head.pairs()
    return _is_one_hertz(pairs) and _is_coarse(pairs)


def is_pensieve(head: Head) -> bool:
    """Seconds and fine Mbit/s at any step of up to a minute."""
    pairs = head.pairs()
    steps = [b[0] - a[0] for a, b in pairwise(pairs)]
    plausible = bool(steps) and sorted(steps)[len(steps) // 2] <= 60
    return plausible and not _is_coarse(pairs) and all(rate <= 10_000 for _, rate in pairs)


def is_oboe(head: Head) -> bool:
    """Pairs of lines with one rate."""
    pairs = head.pairs()
    both = list(zip(pairs[::2], pairs[1::2], strict=False))
    return len(both) > 1 and all(first[1] == last[1] for first, last in both)


def _is_one_hertz(pairs: Pairs) -> bool:
    times = [time for time, _ in pairs]
    return len(pairs) > 1 and all(time == int(time) for time in times) and _usual_step(times) == 1


def _usual_step(times: list[float]) -> float:
    steps = sorted(b - a for a, b in pairwise(times))
    return steps[len(steps) // 2]


def _is_coarse(pairs: Pairs) -> bool:
    return all(2 * rate == int(2 * rate) for _, rate in pairs)
