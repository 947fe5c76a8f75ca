import json
import pickle
import re

import pytest

from fedsim.errors import TraceError
from fedsim.world.importers.catalogue import PUBLISHED
from fedsim.world.importers.inputs import choose

START_MS = 1_402_358_400_000
SABRE = '[{"duration_ms": 1000, "bandwidth_kbps": 5, "latency_ms": %s}]'
LOG = "%d 1000 59.8 10.7 125000 1000\n"
FCC = "180.0\t0.462624\n185.0\t1.115528\n190.0\t2.758448\n"
CONTENT = {
    "stunner": f"u 1 {START_MS} 2 86400000\n",
    "fedscale": json.dumps({"1": {"computation": 5, "communication": 9}}),
    "flash": json.dumps({"a": {"down_u": 1, "down_sigma": 0, "up_u": 1, "up_sigma": 0}}),
    "mahimahi": "0\n0\n7\n1500\n",
    "hsdpa": SABRE % 100,
    "ghent": SABRE % 20,
    "ucc5g": "Timestamp,DL_bitrate\n2019.12.14_10.00.00,5\n",
    "nyu_mets": "1.5,Mbits/sec\n",
    "lumos5g": "1.0 308.0\n2.0 76.5\n3.0 12\n",
    "pensieve": FCC,
    "oboe": "15.0 3168.6\n474.0 3168.6\n514.0 3183.2\n905.0 3183.2\n",
}


def test_every_format_is_tried():
    assert CONTENT.keys() == PUBLISHED.keys()


@pytest.mark.parametrize("name", CONTENT)
def test_content_decides_whatever_the_name(written_file, name):
    for file in ("trace", "report.json", "hsdpa.csv", "fcc.log"):
        chosen = choose("auto", [written_file(CONTENT[name], file)])
        assert chosen.name == name


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (LOG % 1289406399, "hsdpa"),
        (LOG % 1453121790686, "ghent"),
        (pickle.dumps({1: {"active": []}}), "fedscale"),
        (json.dumps({"0": {"guid": "g", "model": "m", "messages": "x" * 100_000}}), "flash"),
        (f"u 1 {START_MS} 2 " + "3600000 " * 20_000, "stunner"),
        ("0.0 4.35\n0.206 0.872\n0.834 0.011\n", "pensieve"),
    ],
)
def test_other_shapes_of_a_format(written_file, content, name):
    assert choose("auto", [written_file(content)]).name == name


@pytest.mark.parametrize(
    ("content", "candidates"),
    [
        (SABRE % 55, ("hsdpa", "ghent")),
        ("0.0 1.302336\n1.0 1.707264\n2.0 1.832192\n", ("hsdpa", "pensieve")),
        ("0 1.37\n5 1.37\n10 2.21\n15 2.21\n", ("pensieve", "oboe")),
    ],
)
def test_ambiguous_content_names_its_candidates(refusal, written_file, content, candidates):
    message = refusal("auto", written_file(content))
    assert f"content that may be {' or '.join(candidates)}; name it instead of auto" in message


def test_a_second_file_may_settle_what_the_first_leaves_open(written_file):
    open_ = written_file("0.0 1.302336\n1.0 1.707264\n2.0 1.832192\n", "a")
    assert choose("auto", [open_, written_file(FCC, "b")]).name == "pensieve"
    assert choose("auto", [open_, written_file(SABRE % 100, "c")]).name == "hsdpa"


def test_files_of_two_formats_are_refused(refusal, written_file):
    one, two = written_file(CONTENT["stunner"], "a"), written_file(CONTENT["mahimahi"], "b")
    assert "expected stunner as" in refusal("auto", one, two)


@pytest.mark.parametrize("content", ["", "hello world\n", b"\x00\x01\x02", b"\xff\xfe", "{}", "a,b\n1,2\n"])
def test_content_of_no_format_is_refused(refusal, written_file, content):
    message = refusal("auto", written_file(content))
    assert "expected one of the formats stunner, fedscale" in message


def test_a_folder_is_searched_and_strangers_are_counted(convert, written_file):
    path = written_file(FCC, "deep/er/a.log")
    written_file("Copyright somebody\n", "LICENSE")
    written_file(FCC, ".hidden")
    root = path.parents[2]
    for name in ("auto", "pensieve"):
        written, _ = convert(name, root)
        assert written.rows == {"bandwidth.csv": 3}
        assert written.counts == {"files in the folder that are not pensieve skipped": 1}


def test_one_name_in_two_folders_gives_two_traces(written_file):
    inputs = choose(
        "pensieve", [written_file(FCC, "static/a.csv"), written_file(FCC, "driving/a.csv")]
    ).inputs
    assert [source.name for source in inputs] == ["pensieve-static-a", "pensieve-driving-a"]


def test_names_become_identifiers(written_file):
    odd = [written_file(FCC, name) for name in ("a b=c@é.csv", "x" * 90, "x" * 91, "-lead")]
    names = [source.name for source in choose("pensieve", odd).inputs]
    assert names[0] == "pensieve-a_b_c__"
    assert len(set(names)) == 4
    assert all(re.fullmatch(r"[A-Za-z0-9._:-]{1,56}", name) for name in names)


def test_the_same_name_twice_is_refused(written_file):
    paths = [written_file(FCC, "a/b/x"), written_file(FCC, "c/b/x")]
    with pytest.raises(TraceError, match="files of different names"):
        choose("pensieve", paths)


def test_what_is_not_there_is_refused(refusal, tmp_path):
    assert "expected a file or folder" in refusal("auto", tmp_path / "nothing")
    assert 'found "norway"' in refusal("norway", tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    assert "expected files of the format hsdpa" in refusal("hsdpa", tmp_path / "empty")
    assert "expected one of the formats" in refusal("auto", tmp_path / "empty")


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("stunner", "stunner_golf"),
        ("flash", "flash"),
        ("mahimahi", "mahimahi"),
        ("hsdpa", "hsdpa_norway_sabre"),
        ("ghent", "ghent_lte_sabre"),
        ("ucc5g", "ucc_5g"),
        ("nyu_mets", "nyu_mets"),
        ("lumos5g", "lumos5g"),
        ("pensieve", "confiwent_fcc_puffer"),
        ("oboe", "oboe"),
    ],
)
def test_real_folders_are_recognised(real, name, folder):
    assert choose("auto", [real(folder)]).name == name
