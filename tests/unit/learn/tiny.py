"""A model of a few thousand weights, in float64, and random examples: for laws that need many trainings."""

import torch

from fedsim.learn.encode import Encoded
from fedsim.learn.peft_bridge import AdapterSlot
from fedsim.lora.factors import Factors

LAYERS = tuple(
    f"model.layers.{block}.{name}"
    for block in range(2)
    for name in ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")
)
VOCABULARY = 40


def tiny_slot(dtype=torch.float64):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=VOCABULARY,
        pad_token_id=0,
        initializer_range=0.3,
    )
    model = LlamaForCausalLM(config).to(dtype).requires_grad_(requires_grad=False).eval()
    return AdapterSlot(model, LAYERS)


def sizes(slot, name):
    """(d_in, d_out) of a layer."""
    d_out, d_in = dict(slot.model.named_modules())[name].get_base_layer().weight.shape
    return d_in, d_out


def factors(d_in, d_out, rank, seed):
    generator = torch.Generator().manual_seed(seed)
    return Factors(
        lora_a=0.3 * torch.randn(rank, d_in, generator=generator),
        lora_b=0.3 * torch.randn(d_out, rank, generator=generator),
    )


def adapter(slot, ranks, seed):
    """Random factors, these ranks by turns."""
    return {
        name: factors(*sizes(slot, name), ranks[index % len(ranks)], 100 * seed + index)
        for index, name in enumerate(LAYERS)
    }


def shard(lengths, seed):
    """Random examples of these lengths; each has at least one target."""
    generator = torch.Generator().manual_seed(seed)
    return [
        Encoded(tuple(torch.randint(1, VOCABULARY, (length,), generator=generator).tolist()), length // 2)
        for length in lengths
    ]
