"""Make the embedded base model again: ``python -m fedsim.learn.embedded.pretrain --out DIR``.

The model reads the wide restaurant language of `grammar`, in which every choice is free. About five minutes
on one core. Weights are saved as float16; the tokenizer and a note of how they came about lie beside them.
"""

import argparse
import json
import logging
import math
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from fedsim.learn.embedded.grammar import wide_example
from fedsim.learn.encode import Batch, collate, encode
from fedsim.seeds import Seeds

_LOG = logging.getLogger(__name__)
_PAD, _EOS = "<pad>", "<eos>"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that the weights depend on.

    Args:
        seed: Of corpus, initial weights and order.
        steps: Optimizer steps.
        batch_size: Sequences per step.
        max_length: Longer sequences are cut.
        learning_rate: Peak, after a short warm-up; falls as a cosine to 3 %.
        prompt_steps: First steps that learn the prompt as well, so that its words get embeddings.
        vocab_size: Tokens of the byte-level BPE.
        tokenizer_examples: Pairs that the tokenizer is trained on.
        hidden_size: Width of the residual stream.
        intermediate_size: Width of the feed-forward block.
        num_blocks: Transformer blocks.
        num_heads: Attention heads.
    """

    seed: int = 0
    steps: int = 1500
    batch_size: int = 24
    max_length: int = 96
    learning_rate: float = 3e-3
    prompt_steps: int = 100
    vocab_size: int = 1024
    tokenizer_examples: int = 8000
    hidden_size: int = 128
    intermediate_size: int = 352
    num_blocks: int = 4
    num_heads: int = 4


def train_tokenizer(recipe: Recipe) -> PreTrainedTokenizerFast:
    """Train the byte-level BPE on pairs of the wide language."""
    rng = random.Random(Seeds(recipe.seed).seed("tokenizer"))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocab_size,
        special_tokens=[_PAD, _EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pairs = (wide_example(rng) for _ in range(recipe.tokenizer_examples))
    tokenizer.train_from_iterator((pair.prompt + pair.target for pair in pairs), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=_EOS, pad_token=_PAD)


def build_model(recipe: Recipe) -> LlamaForCausalLM:
    """Build the model with random weights."""
    torch.manual_seed(Seeds(recipe.seed).seed("weights"))
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=recipe.vocab_size,
            hidden_size=recipe.hidden_size,
            intermediate_size=recipe.intermediate_size,
            num_hidden_layers=recipe.num_blocks,
            num_attention_heads=recipe.num_heads,
            num_key_value_heads=recipe.num_heads,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=1,
            pad_token_id=0,
        )
    )


def batches(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Iterator[Batch]:
    """Draw fresh batches of the wide language without end."""
    rng = random.Random(Seeds(recipe.seed).seed("corpus"))
    while True:
        examples = [wide_example(rng) for _ in range(recipe.batch_size)]
        yield collate(encode(tokenizer, examples, recipe.max_length), pad_id=0)


def pretrain(recipe: Recipe, tokenizer: PreTrainedTokenizerFast, model: LlamaForCausalLM) -> float:
    """Train the model in place.

    Returns:
        Running mean of the loss at the end, nats per target token.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.05
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, recipe.steps))
    running = math.nan
    for step, batch in zip(range(recipe.steps), batches(recipe, tokenizer), strict=False):
        prompt_too = batch.input_ids.masked_fill(batch.attention_mask == 0, -100)
        labels = prompt_too if step < recipe.prompt_steps else batch.labels
        loss = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        running = loss.item() if math.isnan(running) else 0.95 * running + 0.05 * loss.item()
        if step % 100 == 99:
            _LOG.info("step %d of %d: loss %.4f", step + 1, recipe.steps, running)
    return running


def _rate(step: int, steps: int) -> float:
    warm_up = min(1.0, (step + 1) / 60)
    return warm_up * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def save(
    directory: Path, recipe: Recipe, tokenizer: PreTrainedTokenizerFast, model: LlamaForCausalLM, loss: float
) -> None:
    """Write weights (float16), configuration, tokenizer and provenance."""
    directory.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    provenance = {
        "made_by": f"python -m fedsim.learn.embedded.pretrain --seed {recipe.seed} --steps {recipe.steps}",
        "corpus": "fedsim.learn.embedded.grammar.wide_example, generated; no third-party text or weights",
        "licence": "Apache-2.0",
        "recipe": asdict(recipe),
        "final_loss": round(loss, 4),
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    (directory / "provenance.json").write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Pretrain the embedded base model.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1500)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    recipe = Recipe(seed=arguments.seed, steps=arguments.steps)
    tokenizer = train_tokenizer(recipe)
    model = build_model(recipe)
    loss = pretrain(recipe, tokenizer, model)
    save(arguments.out, recipe, tokenizer, model, loss)


if __name__ == "__main__":
    main()
