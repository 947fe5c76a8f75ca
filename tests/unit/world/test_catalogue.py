"""Shapes of known models, and proxies that stand for them."""

from collections import Counter

import numpy as np
import pytest

from fedsim.errors import ScenarioError
from fedsim.world.catalogue import CATALOGUE, catalogue_shape, stands_for
from fedsim.world.cost import Workload, roofline
from fedsim.world.shape import LayerShape, ModelShape

WORKLOAD = Workload(batch_size=4, max_length=64, local_steps=10, wire_dtype="int8")


def proxy(num_blocks: int, suffixes=("q_proj", "v_proj", "gate_proj", "up_proj")) -> ModelShape:
    parents = {"q_proj": "attn", "v_proj": "attn", "gate_proj": "mlp", "up_proj": "mlp"}
    layers = tuple(
        LayerShape(f"model.layers.{i}.{s}", 8, 8, f"{i}.{parents.get(s, s)}")
        for i in range(num_blocks)
        for s in suffixes
    )
    return ModelShape("proxy", layers, 1000, 900, num_blocks, 8, 16, 2, 32)


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("tinyllama-1.1b", 788_480),
        ("llama-3.2-3b", 1_519_616),
        ("llama-2-7b", 2_498_560),
        ("mistral-7b", 2_621_440),
    ],
)
def test_sum_of_layer_widths_equals_the_published_values(name, columns):
    assert sum(layer.d_in + layer.d_out for layer in catalogue_shape(name).layers) == columns


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("llama-3.2-1b", 1_235_814_400),
        ("llama-3.2-3b", 3_212_749_824),
        ("tinyllama-1.1b", 1_100_048_384),
        ("llama-2-7b", 6_738_415_616),
        ("mistral-7b", 7_241_732_096),
        ("smollm2-135m", 134_515_008),
        ("smollm2-360m", 361_821_120),
        ("smollm2-1.7b", 1_711_376_384),
        ("llama-2-13b", 13_015_864_320),
        ("llama-3.1-8b", 8_030_261_248),
        ("qwen2.5-0.5b", 494_032_768),
        ("qwen2.5-1.5b", 1_543_714_304),
        ("qwen2.5-3b", 3_085_938_688),
        ("qwen2.5-7b", 7_615_616_512),
    ],
)
def test_parameter_counts_equal_the_published_ones(name, params):
    assert catalogue_shape(name).num_params == params


@pytest.mark.parametrize("name", CATALOGUE)
def test_matmul_weights_leave_out_only_lookup_and_small_vectors(name):
    shape = catalogue_shape(name)
    assert 0 <= shape.num_params - shape.matmul_params < shape.vocab_size * shape.hidden_size * 1.01


@pytest.mark.parametrize("num_blocks", [4, 8, 16])
def test_a_uniform_plan_of_a_proxy_costs_what_it_costs_on_the_target(num_blocks):
    suffixes = ("q_proj", "v_proj", "gate_proj", "up_proj")
    target = roofline(catalogue_shape("llama-3.2-1b", suffixes), WORKLOAD)
    mapped = roofline(stands_for(proxy(num_blocks, suffixes), "llama-3.2-1b"), WORKLOAD)
    total, trained = 16, 4
    n, m = len(target.layers), len(mapped.layers)
    assert m == num_blocks * 4
    assert mapped.download_bytes([total] * m) == target.download_bytes([total] * n)
    assert mapped.upload_bytes([trained] * m) == target.upload_bytes([trained] * n)
    assert mapped.flops([total] * m, [trained] * m) == pytest.approx(target.flops([total] * n, [trained] * n))
    assert mapped.memory_bytes([total] * m, [trained] * m) == pytest.approx(
        target.memory_bytes([total] * n, [trained] * n)
    )


def test_uneven_blocks_go_to_the_first_layers():
    mapped = stands_for(proxy(4, ("q_proj",)), "tinyllama-1.1b")
    assert [layer.copies for layer in mapped.layers] == [6, 6, 5, 5]
    assert [layer.name for layer in mapped.layers] == [layer.name for layer in proxy(4, ("q_proj",)).layers]


def test_copies_multiply_every_price_of_a_layer():
    one = ModelShape("one", (LayerShape("l.0.q", 8, 4, "g"),), 100, 90, 1, 8, 16, 2, 32)
    three = ModelShape("three", (LayerShape("l.0.q", 8, 4, "g", copies=3),), 100, 90, 1, 8, 16, 2, 32)
    a, b = roofline(one, WORKLOAD), roofline(three, WORKLOAD)
    for field in (
        "down_bytes",
        "up_bytes",
        "tail_memory",
        "train_memory",
        "group_memory",
        "tail_flops",
        "train_flops",
    ):
        np.testing.assert_allclose(getattr(b, field), 3 * getattr(a, field), err_msg=field)
    assert a.base_memory == b.base_memory
    assert a.base_flops == b.base_flops


def test_targets_choose_modules_in_block_order():
    counts = Counter(
        layer.name.rpartition(".")[2] for layer in catalogue_shape("llama-2-7b", ("v_proj", "q_proj")).layers
    )
    assert counts == {"q_proj": 32, "v_proj": 32}


@pytest.mark.parametrize(
    ("shape", "target", "match"),
    [
        (proxy(4, ("c_attn",)), "llama-3.2-1b", "c_attn"),
        (proxy(40, ("q_proj",)), "llama-2-7b", "40 blocks"),
        (proxy(4), "llama-9", "llama-9"),
        (
            ModelShape("p", (LayerShape("q_proj", 2, 2, "g"),), 1, 1, 1, 2, 2, 1, 2),
            "llama-2-7b",
            "block number",
        ),
    ],
)
def test_what_cannot_be_mapped_is_refused_by_name(shape, target, match):
    with pytest.raises(ScenarioError, match=match):
        stands_for(shape, target)


def test_an_unknown_suffix_is_refused():
    with pytest.raises(ScenarioError, match="c_fc"):
        catalogue_shape("mistral-7b", ("q_proj", "c_fc"))
