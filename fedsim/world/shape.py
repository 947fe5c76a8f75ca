"""What shape does a model have? Only numbers: the cost model and the allocator need no weights."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LayerShape:
    """One module that carries an adapter.

    Args:
        name: Full module name, for instance ``model.layers.0.self_attn.q_proj``.
        d_in: Input features.
        d_out: Output features.
        input_group: Modules with the same value read the same tensor, which is saved once for all of them.
        copies: How many equal modules of a larger model this one stands for; prices are multiplied by it.
    """

    name: str
    d_in: int
    d_out: int
    input_group: str
    copies: int = 1


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A causal language model as the cost model sees it.

    Args:
        name: For people.
        layers: The modules that carry an adapter; plans and prices follow this order.
        num_params: All weights held in memory.
        matmul_params: Weights that multiply each token: LM head included, embedding look-up not.
        num_blocks: Transformer blocks.
        hidden_size: Width of the residual stream.
        intermediate_size: Width of the feed-forward block.
        num_heads: Attention heads.
        vocab_size: Output classes.
    """

    name: str
    layers: tuple[LayerShape, ...]
    num_params: int
    matmul_params: int
    num_blocks: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    vocab_size: int
