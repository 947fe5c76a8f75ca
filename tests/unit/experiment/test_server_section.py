"""What goes with which pacing, and what is refused."""

from types import SimpleNamespace

import pytest

from fedsim.errors import ScenarioError
from fedsim.experiment.scenario import load_scenario
from fedsim.experiment.serving import build_pacing, server_config
from fedsim.method.bundle import Streaming
from fedsim.method.pacing import BufferedPacing, Mixing, SyncPacing
from fedsim.method.select import RULES
from fedsim.method.staleness import StalenessRule
from fedsim.seeds import Seeds
from tests.fakes import toy_prices

BASE = """\
name: good
fleet: {devices: d.csv, bandwidth: b.csv, availability_policy: always}
stop: {rounds: 3}
server:
"""


def load(tmp_path, *lines, **overrides):
    path = tmp_path / "x.yaml"
    path.write_text(BASE + "".join(f"  {line}\n" for line in lines or ("pacing: sync",)))
    return load_scenario(path, {key.replace("__", "."): value for key, value in overrides.items()})


def test_sync_is_the_default_and_has_no_options_of_others(tmp_path):
    server = load(tmp_path).server
    assert build_pacing(server) == SyncPacing(10, 1.0, 1, None, "recall")
    assert server.concurrency is server.buffer is server.staleness is None


def test_buffered_reads_all_its_options(tmp_path):
    server = load(
        tmp_path,
        "pacing: buffered",
        "concurrency: 7",
        "buffer: 3",
        "min_updates: 2",
        "deadline: 1 h",
        "staleness: {kind: hinge, slope: 2, grace: 1}",
        "max_staleness: 5",
        "server_learning_rate: 0.5",
    ).server
    assert build_pacing(server) == BufferedPacing(
        7, 3, 2, 3600.0, Mixing(StalenessRule("hinge", slope=2.0, grace=1), 5, 0.5)
    )


def test_async_is_a_buffer_of_one(tmp_path):
    pacing = build_pacing(load(tmp_path, "pacing: async", "concurrency: 3").server)
    assert pacing == BufferedPacing(3, 1)
    assert pacing.mixing.staleness == StalenessRule("polynomial", exponent=0.5)


def test_semi_sync_has_rounds_and_mixes(tmp_path):
    pacing = build_pacing(load(tmp_path, "pacing: semi_sync", "cohort: 6", "deadline: 9 min").server)
    assert pacing == SyncPacing(6, 1.0, 1, 540.0, "finish", Mixing())


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["pacing: buffered", "cohort: 3"],
            "x.yaml:6: server.cohort: has no effect on buffered pacing; leave it out or write null",
        ),
        (
            ["pacing: sync", "max_staleness: 3"],
            "x.yaml:6: server.max_staleness: has no effect on sync pacing; leave it out or write null",
        ),
        (
            ["pacing: async", "buffer: 3"],
            "x.yaml:6: server.buffer: has no effect on async pacing; leave it out or write null",
        ),
        (
            ["pacing: semi_sync", "deadline: 1 h", "surplus: recall"],
            "x.yaml:7: server.surplus: has no effect on semi_sync pacing; leave it out or write null",
        ),
        (["pacing: buffered", "buffer:"], "x.yaml:6: server.buffer: expected a whole number, got nothing"),
        (["pacing: semi_sync"], "server.deadline: required by semi_sync pacing"),
        (
            ["pacing: buffered", "buffer: 2", "min_updates: 3"],
            "x.yaml:7: server.min_updates: expected at most the buffer, 2, got 3",
        ),
        (
            ["pacing: buffered", "server_learning_rate: 1.5"],
            "x.yaml:6: server.server_learning_rate: expected at most 1, got 1.5",
        ),
        (
            ["pacing: buffered", "staleness: {kind: constant, exponent: 1}"],
            "server.staleness.exponent: has no effect on constant staleness; leave it out",
        ),
        (
            ["pacing: bufered"],
            'expected "sync", "semi_sync", "buffered" or "async", got "bufered"; did you mean "buffered"?',
        ),
        (["select: uniformly"], 'did you mean "uniform"?'),
    ],
)
def test_contradictions_are_one_line(tmp_path, lines, message):
    with pytest.raises(ScenarioError) as caught:
        load(tmp_path, *lines)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "fine"),
    [
        (["pacing: sync"], False),
        (["pacing: sync", "deadline: 1 h"], True),
        (["pacing: semi_sync", "deadline: 1 h"], False),
        (["pacing: semi_sync", "deadline: 1 h", "max_staleness: 3"], True),
        (["pacing: buffered"], False),
        (["pacing: buffered", "deadline: 1 h"], True),
        (["pacing: async", "max_staleness: 3"], True),
    ],
)
def test_pause_needs_an_end(tmp_path, lines, fine):
    if fine:
        load(tmp_path, *lines, fleet__on_interrupt="pause")
        return
    with pytest.raises(ScenarioError, match=r"fleet.on_interrupt: pause needs server\."):
        load(tmp_path, *lines, fleet__on_interrupt="pause")


def method(reason):
    return SimpleNamespace(name="toy", sync_only=reason)


@pytest.mark.parametrize("pacing", ["buffered", "async", "semi_sync"])
def test_a_method_that_cannot_mix_versions_is_refused_with_its_reason(tmp_path, pacing):
    lines = [f"pacing: {pacing}", "deadline: 1 h"]
    scenario = load(tmp_path, *lines)
    with pytest.raises(ScenarioError, match=f"x.yaml:5: server.pacing: .*toy.* got {pacing}: it restarts"):
        server_config(scenario, Seeds(0), method("it restarts every round"), toy_prices())
    assert server_config(scenario, Seeds(0), method(""), toy_prices()).pacing.mixing is not None


def test_such_a_method_runs_in_rounds(tmp_path):
    config = server_config(load(tmp_path), Seeds(0), method("it restarts every round"), toy_prices())
    assert config.pacing.mixing is None


@pytest.mark.parametrize("name", sorted(RULES))
def test_every_selection_rule_can_be_named(tmp_path, name):
    config = server_config(load(tmp_path, f"select: {name}"), Seeds(0), method(""), toy_prices())
    assert type(config.select) is RULES[name]


def test_a_resolved_scenario_says_the_same_again(tmp_path):
    scenario = load(tmp_path, "pacing: buffered", "concurrency: 7")
    again = tmp_path / "again.yaml"
    again.write_text(scenario.describe())
    assert load_scenario(again).server == scenario.server


def capable(**fields):
    """A method that can do what a test does not say otherwise."""
    known = {
        "sync_only": "",
        "needs_whole_uploads": "",
        "no_subspace": "",
        "streaming": Streaming(lambda spectrum, prices, plan: ()),
    }
    return SimpleNamespace(name="tried", **(known | fields))


BUFFERED = ("pacing: buffered",)


@pytest.mark.parametrize(
    ("lines", "fields", "message"),
    [
        (
            ("delivery: progressive",),
            {"streaming": Streaming(None, "it is whole")},
            "server.delivery: .*it is whole",
        ),
        (("upload: progressive",), {"needs_whole_uploads": "no parts"}, "server.upload: .*no parts"),
        ((*BUFFERED, "staleness: {subspace: true}"), {"no_subspace": "no basis"}, "subspace: .*no basis"),
    ],
)
def test_a_method_that_cannot_use_an_option_is_refused_with_its_reason(tmp_path, lines, fields, message):
    scenario = load(tmp_path, *lines)
    with pytest.raises(ScenarioError, match=message):
        server_config(scenario, Seeds(0), capable(**fields), toy_prices())
    assert server_config(scenario, Seeds(0), capable(), toy_prices())


def test_transfers_margin_and_subspace_reach_the_server(tmp_path):
    lines = (
        *BUFFERED,
        "delivery: progressive",
        "upload: progressive",
        "safety_margin: 0.1",
        "deadline: 100 s",
    )
    scenario = load(tmp_path, *lines, "staleness: {subspace: true}")
    config = server_config(scenario, Seeds(0), capable(), toy_prices())
    assert config.progressive
    assert config.partial_upload
    assert config.planned_deadline_s == pytest.approx(90.0)
    assert config.pacing.mixing.subspace
    plain = server_config(load(tmp_path, *BUFFERED), Seeds(0), capable(), toy_prices())
    assert (plain.progressive, plain.partial_upload, plain.safety_margin) == (False, False, 0.0)
    assert not plain.pacing.mixing.subspace


def test_constant_staleness_has_nothing_to_damp(tmp_path):
    with pytest.raises(ScenarioError, match=r"server\.staleness\.subspace: has no effect on constant"):
        load(tmp_path, *BUFFERED, "staleness: {kind: constant, subspace: true}")
