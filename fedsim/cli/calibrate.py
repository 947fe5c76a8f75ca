"""``fedsim calibrate``: measure steps on this machine, and fit the cost model to them."""

from pathlib import Path
from typing import Annotated

import typer

from fedsim.units import format_bytes


def calibrate(
    *,
    model: Annotated[str, typer.Option(help="Base model, as in a scenario.")] = "embedded",
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("calibration.json"),
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    repeats: Annotated[int, typer.Option(min=1, help="Measurements of each point; the least counts.")] = 5,
) -> None:
    """Measure step time and peak memory here, fit the cost model, and say how far off it is."""
    from fedsim.experiment import calibrate as calibrating  # noqa: PLC0415 - imports torch

    def tell(done: int) -> None:
        typer.echo(f"round {done} of {repeats} over all points is done", err=True)

    calibrating.check_machine(device)
    found = calibrating.calibrate(model, device=device, repeats=repeats, tell=tell)
    calibrating.write_calibration(found, out)
    for one in found["points"]:
        point = f"rank {one['total']}/{one['trained']}, {one['batch_size']} x {one['max_length']} tokens"
        typer.echo(f"{point:>34}  {one['step_s']:.4f} s a step, {format_bytes(one['peak_bytes'])}")
    for name in ("time", "memory"):
        median, worst = 100 * found[f"{name}_error"], 100 * found[f"{name}_worst"]
        typer.echo(f"{name:>8}  off by {median:.1f} % (median of held-out points), {worst:.1f} % at worst")
    typer.echo(f"{'rate':>8}  {1e-9 / found['time']['base']:.2f} GFLOP/s on the base; {found['clock']}")
    typer.echo(f"{'written':>8}  {out}")
