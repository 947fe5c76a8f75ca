"""How PEFT would train a client: the reference that the pass of `fedsim.learn.cohort` must equal to rounding.

One client alone, in PEFT's own layers, with the model's own loss and torch's own AdamW. PEFT adds up all
active adapters of a layer; three of them make a client: the prefix, whose factors are parameters, the gated
tail and the merged part, whose factors are not.
"""

from contextlib import contextmanager

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer

from fedsim.learn.cohort import Member, stack_members
from fedsim.learn.encode import collate
from fedsim.learn.peft_bridge import to_memory
from fedsim.learn.stacked import StackedAdam
from fedsim.learn.train import LocalRun, batches, check_loss, check_trainable, trained
from fedsim.lora.factors import Factors
from fedsim.method.bundle import Payload

PARTS = ("prefix", "tail", "merged")


@contextmanager
def in_peft(slot, prefix, tail, gate, *, merged=None, scaling=None):
    """Load a client into PEFT's layers; yields layer -> (lora_a, lora_b), the parameters of the prefix."""
    layers = {name: module for name, module in slot.model.named_modules() if isinstance(module, LoraLayer)}
    active = {name: list(layer.active_adapters) for name, layer in layers.items()}
    try:
        loaded = {
            name: _load(
                layer,
                prefix.get(name),
                tail.get(name),
                gate,
                (merged or {}).get(name),
                (scaling or {}).get(name, 1.0),
            )
            for name, layer in layers.items()
        }
        yield {name: pair for name, pair in loaded.items() if pair is not None}
    finally:
        for name, layer in layers.items():
            layer.set_adapter(active[name])
            for part in PARTS:
                layer.delete_adapter(part)


def _load(layer, prefix, tail, gate, merged, scaling):
    """Give one layer the three parts that it has; returns the parameters of its prefix."""
    pair, base = None, layer.get_base_layer().weight
    for part, factors, weight in (
        ("prefix", prefix, scaling),
        ("tail", tail, gate * scaling),
        ("merged", merged, 1.0),
    ):
        if factors is None or not factors.rank or not weight:
            continue
        config = LoraConfig(r=factors.rank, lora_alpha=factors.rank, lora_dropout=0.0)
        layer.update_layer(part, factors.rank, lora_alpha=factors.rank, config=config)
        ours = (layer.lora_A[part].weight, layer.lora_B[part].weight)
        for parameter, factor in zip(ours, (factors.lora_a, factors.lora_b), strict=True):
            parameter.data = factor.detach().to(
                base.device, torch.promote_types(base.dtype, torch.float32), copy=True
            )
        layer.scaling[part] = weight
        pair = ours if part == "prefix" else pair
    layer.set_adapter([part for part in PARTS if part in layer.lora_A])
    for part in PARTS[1:]:
        if part in layer.lora_A:
            layer.lora_A[part].weight.requires_grad = layer.lora_B[part].weight.requires_grad = False
    return pair


@contextmanager
def in_our_pass(slot, prefix, tail, gate):
    """Load a client as fedsim's own pass does; yields its layers, its optimizer and the leaves that move."""
    layers = stack_members(slot, [Member(Payload(prefix, tail), (), LocalRun(1, 1e-3, gate, 0))])
    pairs = [layer.prefix for layer in layers.values()]
    adam = StackedAdam([factor for pair in pairs for factor in (pair.lora_a, pair.lora_b)], [1e-3], 1.0)
    leaves = adam.parts()
    moving = iter(leaves)
    layers = {name: layer.with_prefix(next(moving), next(moving)) for name, layer in layers.items()}
    with slot.replaced({name: layer.forward for name, layer in layers.items()}):
        yield layers, adam, leaves


def train_with_peft(slot, payload, shard, *, run, settings, pad_id):
    """Train the prefix of a payload on a shard; learning rate, gate and steps as in the run."""
    check_trainable(payload, shard)
    device, rule = slot.model.device, payload.rule
    with in_peft(
        slot, payload.prefix, payload.tail, run.gate, merged=payload.merged, scaling=payload.scaling
    ) as trainable:
        parameters = _parameters(trainable, rule)
        optimizer = torch.optim.AdamW(parameters, lr=run.learning_rate, weight_decay=0.0)
        total_loss = 0.0
        for step, examples in enumerate(batches(shard, run, settings.batch_size)):
            batch = collate(examples, pad_id)
            loss = slot.model(
                input_ids=batch.input_ids.to(device),
                attention_mask=batch.attention_mask.to(device),
                labels=batch.labels.to(device),
                use_cache=False,
            ).loss
            step_loss = float(loss.detach())
            check_loss(step_loss, step, run)
            (loss + _penalty(trainable, rule) if rule.penalty else loss).backward()
            torch.nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            total_loss += step_loss
        end = {
            name: Factors(lora_a=to_memory(lora_a), lora_b=to_memory(lora_b))
            for name, (lora_a, lora_b) in trainable.items()
        }
    return trained(payload, run, end, total_loss)


def _parameters(trainable, rule):
    if rule.trains == "both":
        return [factor for pair in trainable.values() for factor in pair]
    for lora_a, _ in trainable.values():
        lora_a.requires_grad = False
    return [lora_b for _, lora_b in trainable.values()]


def _penalty(trainable, rule):
    products = []
    for lora_a, lora_b in trainable.values():
        first = int(rule.penalty_from * lora_a.shape[0])
        products.append(torch.linalg.norm(lora_b[:, first:]) * torch.linalg.norm(lora_a[first:]))
    return rule.penalty * torch.stack(products).sum()
