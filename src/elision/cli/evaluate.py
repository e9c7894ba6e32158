"""``elision eval``: how well suppression works on a model that really knows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from elision.cli.console import err, out, settings_of
from elision.errors import ConfigError

app = typer.Typer(help="Measure suppression on a model that knows.", no_args_is_help=True)

Folder = Annotated[Path | None, typer.Option(help="A model's folder, or an adapter's.")]


@app.callback()
def _group() -> None:
    """Measure suppression on a model that knows."""


@app.command()
def tofu(
    data: Annotated[Path, typer.Option(help="Folder with TOFU's files.")],
    model: Folder = None,
    retain: Folder = None,
    write: Annotated[
        Path | None, typer.Option("--out", help="Where answers, values and tables go.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A small sample: ten minutes.")] = False,
    limit: Annotated[int | None, typer.Option(help="Most rows per set.")] = None,
    prompts: Annotated[int | None, typer.Option(help="Questions that are sampled.")] = None,
    ablation: Annotated[
        bool, typer.Option("--ablation", help="Also without gold answers in the register.")
    ] = False,
    golden: Annotated[
        bool, typer.Option("--golden", help="Only hold the metrics against published values.")
    ] = False,
) -> None:
    """Compare a model that memorised TOFU, with the guard on and off, with one that never knew.

    Exit status 1 if a figure misses its goal.
    """
    from elision.evaluation.tofu import check_golden
    from elision.evaluation.tofu.run import Options, run

    if golden:
        missed = [figure for figure in check_golden(data) if figure.missed]
        for figure in missed:
            err.print(f"{figure.figure}: {figure.value:g}, not {figure.goal}", highlight=False)
        out.print("some golden values differ" if missed else "every golden value is reproduced")
        raise typer.Exit(1 if missed else 0)
    if model is None:
        raise ConfigError("name the model that knows with --model FOLDER, or ask for --golden")
    options = Options(quick=quick, limit=limit, prompts=prompts, ablation=ablation)
    summary = run(
        model=model, data=data, retain=retain, out=write, options=options,
        settings=settings_of(), console=out,
    )  # fmt: skip
    for figure in summary.figures:
        verdict = "misses" if figure.missed else "meets"
        out.print(f"{figure.figure:40} {figure.value:.4g}  {verdict} {figure.goal}")
    raise typer.Exit(1 if summary.missed else 0)
