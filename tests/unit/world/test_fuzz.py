"""Two thousand mutated trace files: a clear error or a clean load, never a traceback, NaN or nonsense."""

# ruff: noqa: E501, C901, PT017  the list of mutations reads best as one; either answer is right

import gzip
import random

import numpy as np
import pytest

from fedsim.errors import TraceError
from fedsim.world.formats.read import read_trace
from fedsim.world.formats.records import AvailabilityTable, BandwidthTable, DeviceTable, StateTable
from fedsim.world.formats.summary import summarise

SEEDS = {
    "availability": "device_id,start_s,end_s,network,charging\n"
    + "".join(f"d{k % 4},{1000 * k},{1000 * k + 700},{'wifi' if k % 3 else 'cell'},{k % 2}\n" for k in range(16)),
    "bandwidth": "trace_id,time_s,down_mbps,up_mbps,rtt_ms\n"
    + "".join(f"t{k // 8},{k % 8},{5 + k / 3:.3f},{1 + k / 9:.2f},{30 + k}\n" for k in range(16)),
    "devices": "device_id,device_class,mem_available_mib,compute_gflops,bandwidth_id,tz_offset_s\n"
    + "".join(f"d{k},phone-mid,{4000 + k},{60 + k},t{k % 2},{3600 * (k % 5 - 2)}\n" for k in range(8)),
    "state": "device_id,time_s,key,value\n"
    + "".join(f"d{k % 3},{100 * k},{'charging' if k % 2 else 'mem_available_mib'},{k % 2 or 3000}\n" for k in range(12)),
}  # fmt: skip
CELLS = [
    "", " ", "nan", "NaN", "inf", "-inf", "-1", "0", "-0", "1e999", "1e-320", "1e308", "1700000000", "True", "0x1f", "1_000",
    "=1+1", "@x", "١٢", "1,5", '"', '""', "\x00", "a" * 70, "5 s", "12:30", "1e5", "99999999999", "none", "é", "\ufeff",
]  # fmt: skip
NUMBER = 500


def mutate(text, rng):
    """Change a file as people, spreadsheets and broken disks do."""
    rows = [line.split(",") for line in text.splitlines()]
    for _ in range(rng.choice([1, 1, 2, 4])):
        kind = rng.randrange(12)
        row = rng.randrange(len(rows))
        column = rng.randrange(len(rows[row])) if rows[row] else 0
        if kind <= 3 and rows[row]:
            rows[row][column] = rng.choice(CELLS)
        elif kind == 4:
            order = list(range(len(rows[0])))
            rng.shuffle(order)
            rows = [[line[k] for k in order if k < len(line)] for line in rows]
        elif kind == 5:
            rows.insert(row, list(rows[rng.randrange(len(rows))]))
        elif kind == 6 and len(rows) > 1:
            del rows[row]
        elif kind == 7 and rows[row]:
            del rows[row][column]
        elif kind == 8:
            rows[row].append(rng.choice(CELLS))
        elif kind == 9:
            factor = rng.choice([1e-3, 1e3, 1e6])
            rows[1:] = [[scaled(cell, factor) for cell in line] for line in rows[1:]]
        elif kind == 10:
            rng.shuffle(rows)
        else:
            rows[0] = [name.upper() if rng.random() < 0.5 else f" {name} " for name in rows[0]]
    data = rng.choice(["\n", "\n", "\r\n", "\r", "\n\n"]).join(",".join(row) for row in rows).encode()
    return bend(data, rng)


def scaled(cell, factor):
    try:
        return repr(float(cell) * factor)
    except ValueError:
        return cell


def bend(data, rng):
    kind = rng.randrange(12)
    if kind == 0 and data:
        at = rng.randrange(len(data))
        return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
    if kind == 1:
        return data[: rng.randrange(len(data) + 1)]
    if kind == 2:
        return data.replace(b",", rng.choice([b";", b"\t"]))
    if kind == 3:
        return b"\xef\xbb\xbf# made by hand\n" + data
    return data


def sound(record):
    """What every table that was read must obey, whatever the file said."""
    if isinstance(record, AvailabilityTable):
        starts, ends = record.starts_s, record.ends_s
        assert np.isfinite(starts).all()
        assert np.isfinite(ends).all()
        assert (starts >= 0).all()
        assert (starts < ends).all()
        assert (ends <= record.period_s).all()
        for k in range(len(record.ids)):
            part = slice(record.offsets[k], record.offsets[k + 1])
            assert (starts[part][1:] > ends[part][:-1]).all()
    elif isinstance(record, BandwidthTable):
        for trace in record.traces:
            assert np.isfinite(trace.down.values).all()
            assert trace.down.values.max() > 0
            assert np.isfinite(trace.down.inverse_integral(0.0, 1e-3))
    elif isinstance(record, DeviceTable):
        assert len(set(record.ids)) == len(record.ids)
        for name in ("mem_available_mib", "compute_gflops"):
            given = record.numbers[name][~np.isnan(record.numbers[name])]
            assert np.isfinite(given).all()
            assert (given >= 0).all()
    else:
        assert isinstance(record, StateTable)
        for events in record.events.values():
            assert np.isfinite(events.values).all()
            assert (events.times_s >= 0).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", list(SEEDS))
def test_mutated_files_give_an_error_or_a_sound_table(kind, tmp_path):
    rng = random.Random(kind)
    loaded = refused = 0
    for k in range(NUMBER):
        data = mutate(SEEDS[kind], rng)
        path = tmp_path / ("x.csv.gz" if k % 10 == 0 else "x.csv")
        path.write_bytes(gzip.compress(data) if k % 10 == 0 else data)
        mode = rng.choice(["normal", "normal", "lenient", "strict"])
        try:
            record = read_trace(path, mode=mode)
        except TraceError as error:
            refused += 1
            assert str(error).startswith(str(path))
            assert "\n" not in str(error)
        else:
            loaded += 1
            sound(record)
            assert summarise(record)
    assert loaded > NUMBER // 20
    assert refused > NUMBER // 5


@pytest.mark.parametrize(
    ("kind", "column", "factor"), [("bandwidth", "down_mbps", 1e6), ("availability", "start_s", 1e6)]
)
def test_a_mistake_of_unit_is_said_or_refused(kind, column, factor, tmp_path):
    lines = [line.split(",") for line in SEEDS[kind].splitlines()]
    columns = ("start_s", "end_s") if kind == "availability" else (column,)
    for name in columns:
        place = lines[0].index(name)
        for line in lines[1:]:
            line[place] = scaled(line[place], factor)
    path = tmp_path / "x.csv"
    path.write_text("\n".join(map(",".join, lines)) + "\n")
    try:
        notes = read_trace(path).origin.notes
    except TraceError as error:
        assert "Unix time" in str(error)
    else:
        assert any("unit?" in note for note in notes)


def test_the_order_of_columns_does_not_matter(tmp_path):
    lines = [line.split(",") for line in SEEDS["bandwidth"].splitlines()]
    for name, order in (("a.csv", [0, 1, 2, 3, 4]), ("b.csv", [4, 2, 0, 3, 1])):
        (tmp_path / name).write_text("\n".join(",".join(line[k] for k in order) for line in lines) + "\n")
    one, other = (read_trace(tmp_path / name) for name in ("a.csv", "b.csv"))
    for mine, theirs in zip(one.traces, other.traces, strict=True):
        assert (mine.down.values == theirs.down.values).all()
        assert mine.latency_s == theirs.latency_s
