"""How PEFT would train a client: the reference that the pass of `fedsim.learn.cohort` must equal to rounding.

One client alone, in PEFT's own layers, with the model's own loss and torch's own AdamW.
"""

import torch

from fedsim.learn.encode import collate
from fedsim.learn.peft_bridge import factors_of
from fedsim.learn.train import batches, check_loss, check_trainable, trained


def train_with_peft(slot, payload, shard, *, run, settings, pad_id):
    """Train the prefix of a payload on a shard; learning rate, gate and steps as in the run."""
    check_trainable(payload, shard)
    device, rule = slot.model.device, payload.rule
    with slot.loaded(
        payload.prefix, payload.tail, run.gate, merged=payload.merged, scaling=payload.scaling
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
        end = factors_of(trainable)
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
