"""Which shapes do well-known models have, and how does a small model stand for one of them? Numbers only.

A tiny proxy never strains a real device. With `stands_for` its prices are those of a catalogue model while
its gradients stay its own: each proxy layer pays for its share of the target's layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedsim.errors import ScenarioError
from fedsim.world.shape import LayerShape, ModelShape


@dataclass(frozen=True, slots=True)
class LlamaShape:
    """Published configuration of a model of the Llama family.

    Args:
        hidden_size: Width of the residual stream.
        num_blocks: Transformer blocks.
        intermediate_size: Width of the feed-forward block.
        num_heads: Attention heads.
        kv_size: Width of keys and of values over all their heads.
        vocab_size: Output classes.
        tied: Whether the LM head is the embedding.
        qkv_bias: Whether q, k and v have biases.
    """

    hidden_size: int
    num_blocks: int
    intermediate_size: int
    num_heads: int
    kv_size: int
    vocab_size: int
    tied: bool
    qkv_bias: bool = False


CATALOGUE: dict[str, LlamaShape] = {
    "llama-3.2-1b": LlamaShape(2048, 16, 8192, 32, 512, 128_256, tied=True),
    "llama-3.2-3b": LlamaShape(3072, 28, 8192, 24, 1024, 128_256, tied=True),
    "tinyllama-1.1b": LlamaShape(2048, 22, 5632, 32, 256, 32_000, tied=False),
    "llama-2-7b": LlamaShape(4096, 32, 11_008, 32, 4096, 32_000, tied=False),
    "llama-2-13b": LlamaShape(5120, 40, 13_824, 40, 5120, 32_000, tied=False),
    "llama-3.1-8b": LlamaShape(4096, 32, 14_336, 32, 1024, 128_256, tied=False),
    "mistral-7b": LlamaShape(4096, 32, 14_336, 32, 1024, 32_000, tied=False),
    "smollm2-135m": LlamaShape(576, 30, 1536, 9, 192, 49_152, tied=True),
    "smollm2-360m": LlamaShape(960, 32, 2560, 15, 320, 49_152, tied=True),
    "smollm2-1.7b": LlamaShape(2048, 24, 8192, 32, 2048, 49_152, tied=True),
    "qwen2.5-0.5b": LlamaShape(896, 24, 4864, 14, 128, 151_936, tied=True, qkv_bias=True),
    "qwen2.5-1.5b": LlamaShape(1536, 28, 8960, 12, 256, 151_936, tied=True, qkv_bias=True),
    "qwen2.5-3b": LlamaShape(2048, 36, 11_008, 16, 256, 151_936, tied=True, qkv_bias=True),
    "qwen2.5-7b": LlamaShape(3584, 28, 18_944, 28, 512, 152_064, tied=False, qkv_bias=True),
}

_PARENTS = {
    "q_proj": ("self_attn", "self_attn.qkv"),
    "k_proj": ("self_attn", "self_attn.qkv"),
    "v_proj": ("self_attn", "self_attn.qkv"),
    "o_proj": ("self_attn", "self_attn.o"),
    "gate_proj": ("mlp", "mlp.gate_up"),
    "up_proj": ("mlp", "mlp.gate_up"),
    "down_proj": ("mlp", "mlp.down"),
}
LLAMA_TARGETS = tuple(_PARENTS)


def catalogue_shape(name: str, targets: Sequence[str] = LLAMA_TARGETS) -> ModelShape:
    """Return the shape of a catalogue model with adapters on these modules.

    Args:
        name: A key of `CATALOGUE`.
        targets: Suffixes of module names, for instance ``q_proj``.

    Raises:
        ScenarioError: If the model or a suffix is unknown.
    """
    if name not in CATALOGUE:
        raise ScenarioError(f"expected a catalogue model ({', '.join(CATALOGUE)}), got {name!r}")
    numbers = CATALOGUE[name]
    sizes = _sizes(numbers)
    for suffix in targets:
        if suffix not in sizes:
            raise ScenarioError(f"{name} has no module {suffix!r}; it has {', '.join(sizes)}")
    layers = tuple(
        LayerShape(
            name=f"model.layers.{block}.{_PARENTS[suffix][0]}.{suffix}",
            d_in=sizes[suffix][0],
            d_out=sizes[suffix][1],
            input_group=f"model.layers.{block}.{_PARENTS[suffix][1]}",
        )
        for block in range(numbers.num_blocks)
        for suffix in LLAMA_TARGETS
        if suffix in targets
    )
    linear = numbers.num_blocks * sum(d_in * d_out for d_in, d_out in sizes.values())
    head = numbers.vocab_size * numbers.hidden_size
    return ModelShape(
        name=name,
        layers=layers,
        num_params=linear + head * (1 if numbers.tied else 2) + _small_params(numbers),
        matmul_params=linear + head,
        num_blocks=numbers.num_blocks,
        hidden_size=numbers.hidden_size,
        intermediate_size=numbers.intermediate_size,
        num_heads=numbers.num_heads,
        vocab_size=numbers.vocab_size,
    )


def stands_for(proxy: ModelShape, target_name: str) -> ModelShape:
    """Price a proxy as a catalogue model: the proxy's layer names, the target's sizes.

    The target's blocks are dealt out to the proxy's in order, as evenly as can be (4 blocks for 22: 6, 6, 5,
    5), and each proxy layer stands for the layers of the same suffix in its share of blocks.

    Args:
        proxy: Shape of the model that is really trained.
        target_name: A key of `CATALOGUE`.

    Returns:
        A shape for the cost model: ``layers`` as many and as named as the proxy's.

    Raises:
        ScenarioError: If a layer has no block number, its suffix does not occur in the target, or the target
            has fewer blocks than the proxy.
    """
    target = catalogue_shape(target_name)
    if target.num_blocks < proxy.num_blocks:
        raise ScenarioError(
            f"{proxy.name} has {proxy.num_blocks} blocks and cannot stand for {target_name} with "
            f"{target.num_blocks}: a proxy needs at most as many blocks as its target"
        )
    sizes = _sizes(CATALOGUE[target_name])
    quotient, rest = divmod(target.num_blocks, proxy.num_blocks)
    layers = []
    for layer in proxy.layers:
        suffix, block = _suffix(layer.name), _block(layer.name)
        if suffix not in sizes:
            raise ScenarioError(
                f"{layer.name}: no module {suffix!r} in {target_name}, so it cannot stand for one; "
                f"{target_name} has {', '.join(sizes)}"
            )
        d_in, d_out = sizes[suffix]
        copies = quotient + (1 if block < rest else 0)
        layers.append(LayerShape(layer.name, d_in, d_out, layer.input_group, copies))
    return replace(target, name=f"{proxy.name} standing for {target_name}", layers=tuple(layers))


def _sizes(numbers: LlamaShape) -> dict[str, tuple[int, int]]:
    """(d_in, d_out) by suffix."""
    hidden, kv, inner = numbers.hidden_size, numbers.kv_size, numbers.intermediate_size
    return {
        "q_proj": (hidden, hidden),
        "k_proj": (hidden, kv),
        "v_proj": (hidden, kv),
        "o_proj": (hidden, hidden),
        "gate_proj": (hidden, inner),
        "up_proj": (hidden, inner),
        "down_proj": (inner, hidden),
    }


def _small_params(numbers: LlamaShape) -> int:
    """Norms and biases."""
    norms = numbers.hidden_size * (2 * numbers.num_blocks + 1)
    biases = numbers.num_blocks * (numbers.hidden_size + 2 * numbers.kv_size) if numbers.qkv_bias else 0
    return norms + biases


def _suffix(name: str) -> str:
    return name.rpartition(".")[2]


def _block(name: str) -> int:
    """Return the first number in a module name, which is its block."""
    for part in name.split("."):
        if part.isdigit():
            return int(part)
    raise ScenarioError(
        f"{name}: expected a block number in the module name, so that it can stand for blocks"
    )
