"""What does the optional file beside a trace say? ``<file>.toml`` names source, licence and clock."""

import difflib
import math
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast, get_args

from fedsim.errors import TraceError
from fedsim.world.formats.records import GapPolicy, Kind

_KEYS = ("kind", "source", "licence", "period_s", "start_utc", "tz", "loop", "gap_policy")
_MAX_TZ_H = 14.0


@dataclass(frozen=True, slots=True)
class Sidecar:
    """Facts about a trace file that its columns cannot say; None where it says nothing.

    Args:
        kind: Which of the four files it is.
        source: Who measured or generated it; text that begins with "generated" marks a generator's output.
        licence: Under which licence.
        period_s: Length after which the trace begins again.
        start_s: Unix time of second 0, from ``start_utc``.
        tz_offset_s: Offset of the file's clock from UTC, from ``tz`` in hours.
        loop: Whether the trace begins again.
        gap_policy: What a hole in a bandwidth trace means.
    """

    kind: Kind | None = None
    source: str | None = None
    licence: str | None = None
    period_s: float | None = None
    start_s: float | None = None
    tz_offset_s: float = 0.0
    loop: bool | None = None
    gap_policy: GapPolicy | None = None


def read_sidecar(path: Path | str) -> Sidecar:
    """Read ``<path>.toml`` if it is there.

    Raises:
        TraceError: If it is not TOML, or has an unknown key or a value of the wrong kind.
    """
    beside = Path(f"{path}.toml")
    if not beside.exists():
        return Sidecar()
    try:
        content = tomllib.loads(beside.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TraceError(f"{beside}: expected TOML, got: {error}; fix the file") from None
    for key in content:
        if key not in _KEYS:
            near = difflib.get_close_matches(key, _KEYS, 1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise TraceError(f'{beside}: expected one of {", ".join(_KEYS)}, got the key "{key}"{hint}')
    return Sidecar(
        kind=cast("Kind | None", _choice(beside, content, "kind", get_args(Kind))),
        source=_text(beside, content, "source"),
        licence=_text(beside, content, "licence"),
        period_s=_number(beside, content, "period_s", 0.0, math.inf),
        start_s=_instant(beside, content),
        tz_offset_s=3600.0 * (_number(beside, content, "tz", -_MAX_TZ_H, _MAX_TZ_H) or 0.0),
        loop=_flag(beside, content),
        gap_policy=cast("GapPolicy | None", _choice(beside, content, "gap_policy", get_args(GapPolicy))),
    )


def _wrong(beside: Path, key: str, expected: str, got: object) -> TraceError:
    return TraceError(f'{beside}: {key}: expected {expected}, got "{got}"; fix the value')


def _choice(beside: Path, content: dict[str, Any], key: str, choices: tuple[str, ...]) -> str | None:
    value = content.get(key)
    if value is not None and value not in choices:
        raise _wrong(beside, key, f"one of {', '.join(choices)}", value)
    return cast("str | None", value)


def _text(beside: Path, content: dict[str, Any], key: str) -> str | None:
    value = content.get(key)
    if value is not None and not isinstance(value, str):
        raise _wrong(beside, key, "a text", value)
    return value


def _number(beside: Path, content: dict[str, Any], key: str, low: float, high: float) -> float | None:
    value = content.get(key)
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= high or math.isinf(value) or (key == "period_s" and value == 0):
        raise _wrong(beside, key, "hours from -14 to 14" if key == "tz" else "seconds > 0", value)
    return float(value)


def _flag(beside: Path, content: dict[str, Any]) -> bool | None:
    value = content.get("loop")
    if value is not None and not isinstance(value, bool):
        raise _wrong(beside, "loop", "true or false", value)
    return value


def _instant(beside: Path, content: dict[str, Any]) -> float | None:
    value = content.get("start_utc")
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise _wrong(beside, "start_utc", "a date and time", value) from None
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if value is not None:
        raise _wrong(beside, "start_utc", "a date and time such as 2024-05-01T00:00:00Z", value)
    return None
