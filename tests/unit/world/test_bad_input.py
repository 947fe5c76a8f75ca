"""Every row of the bad-input table: one clear line, naming file, line, what was expected and the way out."""
# ruff: noqa: E501  one case per line reads as a table

import gzip

import pytest

from fedsim.errors import TraceError
from fedsim.world.formats.availability import read_availability
from fedsim.world.formats.bandwidth import read_bandwidth
from fedsim.world.formats.devices import read_devices
from fedsim.world.formats.read import read_trace
from fedsim.world.formats.state import read_state

A = "device_id,start_s,end_s\n"
B = "trace_id,time_s,down_mbps,up_mbps,rtt_ms\n"
D = "device_id,compute_gflops,mem_available_mib\n"
S = "device_id,time_s,key,value\n"

BROKEN = [
    ("empty file", read_availability, "", ":1: expected a header line"),
    ("only comments", read_availability, "# a\n# b\n", ":1: expected a header line"),
    ("header only", read_availability, A, ":1: expected rows after the header"),
    ("no header", read_availability, "a,1,2\nb,3,4\n", ':1: expected the columns device_id, start_s, end_s, "device_id"'),
    ("missing column", read_availability, "device_id,start_s\na,1\n", '"end_s" is missing'),
    ("column twice", read_availability, "device_id,start_s,start_s\na,1,2\n", 'got "start_s" twice'),
    ("semicolons", read_availability, "device_id;start_s;end_s\na;1;2\n", "use commas"),
    ("not UTF-8", read_availability, A.encode() + b"a,1,2\n\xff\xfe,1,2\n", ":3: expected UTF-8 text"),
    ("NUL byte", read_availability, A.encode() + b"a,1\x00,2\n", ":2: expected UTF-8 text, found a NUL byte"),
    ("too many fields", read_availability, A + "a,1,2\nb,1,2,3\n", ":3: expected 3 fields (device_id, start_s, end_s), got 4"),
    ("too few fields", read_availability, A + "a,1\n", ":2: expected 3 fields (device_id, start_s, end_s), got 2"),
    ("open quote", read_availability, A + '"a,1,2\n', ":2: expected 3 fields"),
    ("text for a number", read_availability, A + "a,1,2\na,x,9\n", ':3: start_s: expected a number >= 0 (seconds), got "x"'),
    ("NaN", read_availability, A + "a,nan,2\n", ':2: start_s: expected a number >= 0 (seconds), got "nan"'),
    ("infinity", read_availability, A + "a,1,inf\n", ':2: end_s: expected a number >= 0 (seconds), got "inf"'),
    ("empty cell", read_availability, A + "a,,2\n", ':2: start_s: expected a number >= 0 (seconds), got ""'),
    ("truth for a number", read_availability, A + "a,True,2\n", ":2: start_s: expected a number"),
    ("hexadecimal", read_availability, A + "a,0x10,20\n", ":2: start_s: expected a number"),
    ("decimal comma", read_availability, A + 'a,"1,5",2\n', ':2: start_s: expected a number >= 0 (seconds), got "1,5"'),
    ("negative time", read_availability, A + "a,-1,2\n", ':2: start_s: expected a number >= 0 (seconds), got "-1"'),
    ("end before start", read_availability, A + "a,5,2\n", ":2: end_s: expected a time not before start_s = 5"),
    ("Unix time", read_availability, A + "a,1700000000,1700000100\n", ":2: start_s: expected seconds from the start"),
    ("formula", read_availability, A + "=cmd(),1,2\n", ":2: device_id: expected an identifier"),
    ("minus in front", read_availability, A + "-a,1,2\n", ":2: device_id: expected an identifier"),
    ("id too long", read_availability, A + "a" * 65 + ",1,2\n", ":2: device_id: expected an identifier"),
    ("id with a space", read_availability, A + "a b,1,2\n", ":2: device_id: expected an identifier"),
    ("empty id", read_availability, A + ",1,2\n", ":2: device_id: expected an identifier"),
    ("wrong network", read_availability, "device_id,start_s,end_s,network\na,1,2,lte\n", ":2: network: expected one of none, cell, wifi"),
    ("wrong charging", read_availability, "device_id,start_s,end_s,charging\na,1,2,yes\n", ":2: charging: expected one of 0, 1"),
    ("text for a rate", read_bandwidth, B + "t,0,1,1,9\nt,1,abc,1,9\n", ':3: down_mbps: expected a number >= 0 (Mbit/s), got "abc"; fix the value or read with --lenient'),
    ("negative rate", read_bandwidth, B + "t,0,-1,,\n", ':2: down_mbps: expected a number >= 0 (Mbit/s), got "-1"'),
    ("negative uplink", read_bandwidth, B + "t,0,1,-3,\n", ":2: up_mbps: expected a number >= 0"),
    ("negative round trip", read_bandwidth, B + "t,0,1,1,-3\n", ":2: rtt_ms: expected a number >= 0 (ms)"),
    ("dead trace", read_bandwidth, B + "ok,0,1,,\nt,0,0,,\nt,1,0,,\n", ':3: down_mbps: expected some rate > 0, got only 0 in "t"'),
    ("dead uplink", read_bandwidth, B + "t,0,1,0,\nt,1,1,0,\n", ":2: up_mbps: expected some rate > 0"),
    ("unmeasured trace", read_bandwidth, B + "t,0,,,\n", 'expected at least one measured rate in "t"'),
    ("no speed column", read_devices, "device_id,mem_available_mib\na,1\n", ":1: expected the column compute_gflops or train_tokens_per_s"),
    ("device twice", read_devices, D + "a,1,1\nb,1,1\na,2,2\n", ':4: device_id: expected an identifier that occurs once, got "a"'),
    ("negative memory", read_devices, D + "a,1,-5\n", ":2: mem_available_mib: expected a number >= 0 (MiB)"),
    ("no speed", read_devices, D + "a,0,5\n", ":2: compute_gflops: expected a number > 0 (GFLOP/s)"),
    ("unknown key", read_state, S + "a,1,volume,3\n", ":2: key: expected one of battery_pct"),
    ("text for memory", read_state, S + "a,1,temp_c,3\na,1,mem_available_mib,lots\n", ':3: value: expected a number >= 0 (MiB), got "lots"'),
    ("charge above 100", read_state, S + "a,1,battery_pct,101\n", ":2: value: expected a percentage up to 100"),
    ("charging in words", read_state, S + "a,1,charging,yes\n", ":2: value: expected one of 0, 1"),
    ("strange header", read_trace, "x,y\n1,2\n", ":1: expected the header of availability"),
]  # fmt: skip


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("read", "content", "message"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN]
)
def test_broken_files_give_one_clear_line(tmp_path, read, content, message):
    path = write(tmp_path / "t.csv", content)
    with pytest.raises(TraceError) as caught:
        read(path)
    text = str(caught.value)
    assert message in text
    assert text.startswith(str(path))
    assert "\n" not in text


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(TraceError, match="found none; check the path"):
        read_trace(tmp_path / "nothing.csv")


def test_a_folder_is_no_trace(tmp_path):
    with pytest.raises(TraceError, match="expected a readable trace file"):
        read_trace(tmp_path)


def test_broken_gzip_is_named(tmp_path):
    with pytest.raises(TraceError, match="expected gzip data"):
        read_availability(write(tmp_path / "a.csv.gz", b"plain text"))
    cut = gzip.compress(A.encode() + b"a,1,2\n" * 100)[:40]
    with pytest.raises(TraceError, match="expected gzip data"):
        read_availability(write(tmp_path / "b.csv.gz", cut))


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("period_s = ", "expected TOML"),
        ("periods = 4", 'did you mean "period_s"'),
        ("period_s = -1", "expected seconds > 0"),
        ("period_s = true", "expected seconds > 0"),
        ('kind = "avail"', "expected one of availability, bandwidth"),
        ("loop = 1", "expected true or false"),
        ("source = 1", "expected a text"),
        ("tz = 99", "expected hours from -14 to 14"),
        ('start_utc = "soon"', "expected a date and time"),
        ('gap_policy = "fill"', "expected one of hold, outage"),
        ("period_s = 50", ":2: end_s: expected a time within the period of 50 s"),
    ],
)
def test_a_broken_sidecar_gives_one_clear_line(tmp_path, toml, message):
    path = write(tmp_path / "a.csv", A + "a,1,100\n")
    write(tmp_path / "a.csv.toml", toml)
    with pytest.raises(TraceError) as caught:
        read_availability(path)
    assert message in str(caught.value)


def test_strict_refuses_overlaps(tmp_path):
    path = write(tmp_path / "a.csv", A + "a,1,100\nb,0,5\na,50,60\n")
    with pytest.raises(TraceError, match=r":4: start_s: expected an interval that overlaps no other"):
        read_availability(path, mode="strict")


def test_lenient_drops_and_counts_what_cannot_be_read(tmp_path):
    path = write(tmp_path / "a.csv", A + "a,1,100\na,x,200\na,300\nb,nan,7\nb,5,9\n")
    table = read_availability(path, mode="lenient")
    assert table.ids == ("a", "b")
    assert table.starts_s.tolist() == [1, 5]
    assert any("dropped 2 rows that are not numbers" in note for note in table.origin.notes)
    assert any("dropped 1 rows with the wrong number of fields" in note for note in table.origin.notes)


def test_lenient_still_refuses_negative_values(tmp_path):
    path = write(tmp_path / "a.csv", A + "a,-1,100\n")
    with pytest.raises(TraceError, match="start_s"):
        read_availability(path, mode="lenient")


def test_lenient_refuses_a_file_without_one_good_row(tmp_path):
    with pytest.raises(TraceError, match="expected rows of numbers"):
        read_availability(write(tmp_path / "a.csv", A + "a,x,y\n"), mode="lenient")


def test_lines_are_right_after_comments_and_blank_lines(tmp_path):
    path = write(tmp_path / "a.csv", "# from a meter\n\n" + A + "a,1,2\n# more\n\na,x,9\n")
    with pytest.raises(TraceError, match=r"a\.csv:7: start_s"):
        read_availability(path)


def test_holes_may_be_refused(tmp_path):
    rows = "".join(f"t,{t},1,,\n" for t in (0, 1, 2, 60, 61))
    with pytest.raises(TraceError, match="expected no holes"):
        read_bandwidth(write(tmp_path / "b.csv", B + rows), gap_policy="error")
