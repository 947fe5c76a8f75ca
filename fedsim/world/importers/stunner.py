"""STUNner: when were smartphones on charger and connected?

Source:
    Berta, Bilicki, Jelasity, "Defining and Understanding Smartphone Churn over the Internet", P2P 2014.
"""

from fedsim.world.importers.intervals import Interval, Window, online_rows
from fedsim.world.importers.place import Place, Range
from fedsim.world.importers.rows import Choices, Count, DeviceRow, Inputs, Items
from fedsim.world.importers.text import read_lines

_MS = 1000.0
_HOUR_S = 3600.0
_FIXED = 4
_START = Range("milliseconds since 1970", 1e12, 4e12, "are these seconds?")
_TZ = Range("hours", -14, 14)
_LENGTH = Range("milliseconds", 0, 366 * 86_400_000, "are these microseconds?")
_WINDOW_MIN_S = 3600.0
DEVICE_CLASS = "phone-mid"


def read(inputs: Inputs, choices: Choices) -> Items:
    """Yield one device for each line: one window of one user.

    The times of the rows are local, as the canonical form wants them. The user's hash is not kept.

    Args:
        inputs: Files of lines ``user first_state start_ms tz_hours length_ms length_ms ...``, whose lengths
            alternate between away and online, beginning with the first state (1 is online).
        choices: Only ``merge_gap_s`` has an effect.

    Raises:
        TraceError: For the first thing that is wrong, with its line.
    """
    number = 0
    for source in inputs:
        for place, line in read_lines(source.path):
            number += 1
            yield from _device(place, line.split(), f"stunner-{number:05d}", choices.merge_gap_s or 0.0)
    yield Count(f"devices get the class {DEVICE_CLASS}, since the trace does not say what they are", number)


def _device(place: Place, fields: list[str], device_id: str, merge_gap_s: float) -> Items:
    if len(fields) <= _FIXED:
        found = f"{len(fields)} fields"
        raise place.wrong("line", "user, state, start, tz and lengths", found, "check the format")
    if fields[1] not in ("0", "1"):
        raise place.wrong("first_state", "0 (away) or 1 (online)", fields[1], "check the format")
    start_s = place.integer("start_ms", fields[2], _START) / _MS
    tz_s = place.number("tz_hours", fields[3], _TZ) * _HOUR_S
    lengths_s = [place.integer("length_ms", text, _LENGTH) / _MS for text in fields[_FIXED:]]
    period_s = round(sum(lengths_s), 3)
    if period_s < _WINDOW_MIN_S:
        raise place.wrong(
            "length_ms", "a window of at least an hour", f"{period_s:g} s", "are these seconds?"
        )
    # Second 0 of the rows is midnight on the user's clock, as the readers expect of a device with a zone.
    window = Window(device_id, period_s, (start_s + tz_s) % 86_400)
    yield from online_rows(window, _stays(lengths_s, online=fields[1] == "1"), merge_gap_s)
    yield DeviceRow(device_id, DEVICE_CLASS, availability_period_s=period_s, tz_offset_s=tz_s)


def _stays(lengths_s: list[float], *, online: bool) -> list[Interval]:
    stays, now_s = [], 0.0
    for length_s in lengths_s:
        if online:
            stays.append((now_s, round(now_s + length_s, 3)))
        now_s = round(now_s + length_s, 3)
        online = not online
    return stays
