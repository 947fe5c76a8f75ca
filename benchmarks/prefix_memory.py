"""What does a frozen tail save? Bytes of gradients and optimizer state: a real prefix against masks.

Both hold the same columns and make the same step. *prefix* is fedsim's own pass: the first columns move, the
others are only computed with; it counts whatever the optimizer holds but the columns themselves. *masked* is
what a full-rank adapter with masked gradients holds: PEFT's own layer with all columns as parameters, whose
gradients beyond the prefix are set to zero. Bytes are those of the tensors that exist when there are most of
them: after the step, before the gradients go.
"""

import json

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from fedsim.learn.data import EmbeddedTask
from fedsim.learn.encode import Batch, collate, encode
from fedsim.learn.model import LoadedModel, load_model, model_shape
from fedsim.learn.peft_bridge import AdapterSlot
from fedsim.lora.factors import Factors
from tests.peft_training import in_our_pass

R_TRAIN, R_TOTAL = 8, 64
AIM = 0.2


def batch_of(loaded: LoadedModel) -> Batch:
    task = EmbeddedTask(num_clients=1, seed=0, held_out_size=8)
    return collate(encode(loaded.tokenizer, task.held_out, 64), loaded.tokenizer.pad_token_id)


def held_bytes(parameters: list[Tensor], optimizer: torch.optim.Optimizer) -> int:
    """Gradients and optimizer state, wherever they are."""
    tensors = [weight.grad for weight in parameters if weight.grad is not None]
    tensors += [
        value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)
    ]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def loss_of(model: torch.nn.Module, batch: Batch) -> Tensor:
    return model(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels, use_cache=False
    ).loss


def prefix_bytes(batch: Batch) -> int:
    loaded = load_model("embedded", "cpu")
    shape = model_shape(loaded, "all-linear").layers
    slot = AdapterSlot(loaded.model, [layer.name for layer in shape])
    prefix, tail = (
        {
            layer.name: Factors(lora_a=torch.ones(rank, layer.d_in), lora_b=torch.zeros(layer.d_out, rank))
            for layer in shape
        }
        for rank in (R_TRAIN, R_TOTAL - R_TRAIN)
    )
    with in_our_pass(slot, prefix, tail, 1.0) as (_, adam, leaves):
        loss_of(loaded.model, batch).backward()
    adam.step()
    held = [value for value in vars(adam).values() if torch.is_tensor(value)]
    numbers = sum(leaf.numel() * leaf.element_size() for leaf in leaves)
    everything = [*leaves, *loaded.model.parameters(), *loaded.model.buffers()]
    left = [tensor.grad for tensor in everything if tensor.grad is not None]
    return sum(tensor.numel() * tensor.element_size() for tensor in [*held, *left]) - numbers


def masked_bytes(batch: Batch) -> int:
    loaded = load_model("embedded", "cpu")
    names = [layer.name for layer in model_shape(loaded, "all-linear").layers]
    model = get_peft_model(loaded.model, LoraConfig(r=R_TOTAL, lora_alpha=R_TOTAL, target_modules=names))
    named = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    optimizer = torch.optim.AdamW(named.values(), lr=1e-3, weight_decay=0.0)
    loss_of(model, batch).backward()
    for name, weight in named.items():
        beyond = weight.grad[R_TRAIN:] if "lora_A" in name else weight.grad[:, R_TRAIN:]
        beyond.zero_()
    optimizer.step()
    return held_bytes(list(model.parameters()), optimizer)


def main() -> None:
    torch.set_num_threads(1)
    batch = batch_of(load_model("embedded", "cpu"))
    prefix, masked = prefix_bytes(batch), masked_bytes(batch)
    print(f"r_tot {R_TOTAL}, r_train {R_TRAIN}, all linear layers, AdamW: gradients and optimizer state")
    print(f"prefix {prefix:,} bytes, masked {masked:,} bytes: {prefix / masked:.3f} (aim: at most {AIM})")
    print(json.dumps({"figure": "prefix_memory", "prefix_bytes": prefix, "masked_bytes": masked, "aim": AIM}))


if __name__ == "__main__":
    main()
