"""Where do adapters sit in which family of models? Names of attention modules by ``model_type``."""

from collections.abc import Mapping

ATTENTION = "attention"

_SPLIT = ("q_proj", "k_proj", "v_proj", "o_proj")
_FUSED_NEOX = ("attention.query_key_value", "attention.dense")

ATTENTION_TARGETS: Mapping[str, tuple[str, ...]] = {
    "llama": _SPLIT,
    "mistral": _SPLIT,
    "mixtral": _SPLIT,
    "qwen2": _SPLIT,
    "qwen3": _SPLIT,
    "gemma": _SPLIT,
    "gemma2": _SPLIT,
    "gemma3_text": _SPLIT,
    "smollm3": _SPLIT,
    "olmo2": _SPLIT,
    "granite": _SPLIT,
    "phi": ("q_proj", "k_proj", "v_proj", "self_attn.dense"),
    "phi3": ("qkv_proj", "o_proj"),
    "gpt2": ("attn.c_attn", "attn.c_proj"),
    "gpt_neox": _FUSED_NEOX,
    "opt": ("q_proj", "k_proj", "v_proj", "out_proj"),
}
