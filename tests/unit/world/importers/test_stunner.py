import numpy as np
import pytest

from fedsim.world.formats.availability import read_availability
from fedsim.world.load import load_population

DAY_MS = 86_400_000
START_MS = 1_402_358_400_000
HOURLY = """.306 .331 .347 .355 .357 .347 .321 .276 .229 .200 .181 .170
            .160 .157 .158 .158 .162 .162 .163 .168 .175 .192 .226 .267"""


def line(first, tz, *lengths_ms, user="someone"):
    return f"{user} {first} {START_MS} {tz} {' '.join(map(str, lengths_ms))}\n"


def test_lengths_alternate_and_the_clock_is_local(convert, written_file, stays):
    # Online 1 h, away 22 h, online 1 h, seen from a zone 2 h ahead: 02:00 to 03:00 and 01:00 to 02:00.
    path = written_file(line(1, 2, 3_600_000, 22 * 3_600_000, 3_600_000))
    written, tables = convert("stunner", path)
    assert stays(tables["availability"], "stunner-00001") == [(3600, 3 * 3600)]
    devices = tables["devices"]
    assert devices.numbers["availability_period_s"].tolist() == [86_400]
    assert devices.numbers["tz_offset_s"].tolist() == [7200]
    assert tables["availability"].period_s == 86_400
    assert "someone" not in (written.folder / "availability.csv").read_text()


def test_a_stay_over_local_midnight_is_split_and_counted(convert, written_file, stays):
    path = written_file(line(0, -1, 30 * 60_000, 3_600_000, DAY_MS - 90 * 60_000))
    written, tables = convert("stunner", path)
    assert stays(tables["availability"], "stunner-00001") == [(0, 1800), (84_600, 86_400)]
    assert written.counts["stays split where the window begins again"] == 1


@pytest.mark.parametrize("tz", [-11, 0, 2, 12])
def test_in_a_fleet_the_phone_is_online_when_the_log_says(convert, written_file, tmp_path, tz):
    # On the common clock, UTC, the phone is online from 22:00 to 23:30, in whatever zone it is.
    path = written_file(line(0, tz, 22 * 3_600_000, 90 * 60_000, 30 * 60_000))
    written, _ = convert("stunner", path)
    link = tmp_path / "bandwidth.csv"
    link.write_text("trace_id,time_s,down_mbps\nt,0,1\n")
    fleet = load_population(
        written.folder / "devices.csv", link, written.folder / "availability.csv", merge_gap_s=0
    )
    online = [hour for hour in np.arange(0, 48, 0.5) if len(fleet.online(hour * 3600))]
    assert online == [22, 22.5, 23, 46, 46.5, 47]


def test_a_user_who_never_is_online_stays_in_the_file(convert, written_file, stays):
    path = written_file(line(0, 0, DAY_MS) + line(1, 0, DAY_MS))
    _, tables = convert("stunner", path)
    assert stays(tables["availability"], "stunner-00001") == []
    assert stays(tables["availability"], "stunner-00002") == [(0, 86_400)]


def test_short_absences_are_kept_unless_asked(convert, written_file):
    path = written_file(line(1, 0, 3_600_000, 59_000, 3_600_000, DAY_MS - 7_259_000))
    written, _ = convert("stunner", path)
    assert len(read_availability(written.folder / "availability.csv", merge_gap_s=0).starts_s) == 2
    written, _ = convert("stunner", path, merge_gap_s=60.0)
    assert len(read_availability(written.folder / "availability.csv", merge_gap_s=0).starts_s) == 1
    assert written.counts["short absences merged into a stay"] == 1


@pytest.mark.parametrize(
    ("text", "where", "expected"),
    [
        ("a 1 1402358400000\n", "1: line", "user, state, start, tz and lengths"),
        (line(2, 0, DAY_MS), "1: first_state", "0 (away) or 1 (online)"),
        (line(1, 15, DAY_MS), "1: tz_hours", "-14 to 14"),
        (line(1, 0, DAY_MS) + line(1, 0, "12x"), "2: length_ms", "a number"),
        (line(1, 0, -5), "1: length_ms", "a number from 0"),
        (line(1, 0, 3600, 7200), "1: length_ms", "a window of at least an hour"),
        (f"a 1 {START_MS // 1000} 0 {DAY_MS}\n", "1: start_ms", "are these seconds?"),
        (line(1, 0, DAY_MS) + "a 1 14023", "2: line", "found"),
        ("", "1: line", "an empty file"),
    ],
)
def test_a_wrong_line_is_named(refusal, written_file, text, where, expected):
    path = written_file(text)
    message = refusal("stunner", path)
    assert f"{path}:{where}: " in message
    assert expected in message


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    import os
    from pathlib import Path

    from fedsim.world.importers.rows import Choices
    from fedsim.world.importers.run import import_published

    root = os.environ.get("FEDSIM_REAL_TRACES", Path(__file__).parents[5] / "shared" / "traces_real")
    path = Path(root) / "stunner_golf" / "peersim_session_100.txt"
    if not path.exists():
        pytest.skip(f"real trace samples are not here: {path}")
    out = tmp_path_factory.mktemp("stunner") / "out"
    import_published("stunner", [path], out, Choices())
    users = [text.split()[0] for text in path.read_text().splitlines()]
    return out / "availability.csv", users


def weeks(published, merge_gap_s):
    path, users = published
    table = read_availability(path, merge_gap_s=merge_gap_s)
    text = (path.parent / "devices.csv").read_text().splitlines()
    at = text[0].split(",").index("availability_period_s")
    periods = np.array([float(row.split(",")[at]) for row in text[1:]])
    return table, users, periods


def test_the_published_set_has_the_known_online_shares(published):
    table, users, periods = weeks(published, 0.0)
    assert (len(table.ids), len(set(users)), periods.sum() / 86_400) == (4334, 776, 28_017)
    lengths = table.ends_s - table.starts_s
    online_s = np.bincount(np.repeat(np.arange(4334), np.diff(table.offsets)), lengths, minlength=4334)
    assert online_s.sum() / periods.sum() == pytest.approx(0.232, abs=0.0005)
    assert (online_s == 0).mean() == pytest.approx(0.056, abs=0.0005)
    _, of_user = np.unique(users, return_inverse=True)
    share = np.bincount(of_user, online_s) / np.bincount(of_user, periods)
    assert (share.mean(), share.std()) == pytest.approx((0.243, 0.179), abs=0.0015)
    quantiles = np.quantile(share, [0.05, 0.25, 0.5, 0.75, 0.95])
    assert quantiles == pytest.approx([0.009, 0.104, 0.213, 0.354, 0.575], abs=0.004)


def test_the_published_set_has_the_known_day(published):
    table, _, periods = weeks(published, 0.0)
    minutes = np.zeros(1440)
    for start_s, end_s in zip(table.starts_s, table.ends_s, strict=True):
        first, last = int(start_s // 60), int(np.ceil(end_s / 60))
        marks = np.arange(first, last)
        part = np.minimum(end_s, 60.0 * (marks + 1)) - np.maximum(start_s, 60.0 * marks)
        np.add.at(minutes, marks % 1440, part)
    hours = minutes.reshape(24, 60).sum(axis=1) / (periods.sum() / 24)
    assert hours == pytest.approx([float(text) for text in HOURLY.split()], abs=0.0006)
    assert hours.max() / hours.min() == pytest.approx(2.27, abs=0.005)
    assert (int(hours.argmax()), int(hours.argmin())) == (4, 13)


@pytest.mark.parametrize(
    ("merge_gap_s", "per_day", "quantiles", "log"),
    [
        (60.0, (2.0, 2.7), (219, 2181, 23_874, 51_627), (7.68, 1.67)),
        (300.0, (1.7, 2.2), (375, 3290, 27_712, 57_693), (8.07, 1.58)),
    ],
)
def test_the_published_set_has_the_known_sessions(published, merge_gap_s, per_day, quantiles, log):
    table, _, periods = weeks(published, merge_gap_s)
    lengths = table.ends_s - table.starts_s
    kept = lengths >= 60
    of_row = np.repeat(np.arange(4334), np.diff(table.offsets))[kept]
    daily = np.bincount(of_row, minlength=4334) / (periods / 86_400)
    # Cuts lie at local instead of UTC midnight, which moves few sessions.
    assert (float(np.median(daily)), kept.sum() / (periods.sum() / 86_400)) == pytest.approx(
        per_day, abs=0.15
    )
    assert np.quantile(lengths[kept], [0.1, 0.5, 0.9, 0.99]) == pytest.approx(quantiles, rel=0.01)
    logs = np.log(lengths[kept])
    assert (float(logs.mean()), float(logs.std())) == pytest.approx(log, abs=0.015)
