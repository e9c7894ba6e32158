"""``elision eval``: what suppression and guidance do to a model's answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from elision.cli.console import AsJson, Model, err, out, settings_of, shown, write
from elision.errors import ConfigError

app = typer.Typer(help="Measure what is done to a model's answers.", no_args_is_help=True)

Folder = Annotated[Path | None, typer.Option(help="A model's folder, or an adapter's.")]


@app.callback()
def _group() -> None:
    """Measure what is done to a model's answers."""


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


@app.command()
def reasoning(
    suite: Annotated[str, typer.Option(help="lambada, memo-trap, piqa, gsm8k, svamp or addition.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder with the suites' files; addition needs none.")
    ] = None,
    model: Model = None,
    items: Annotated[int, typer.Option(help="Items tested, the first of the suite.")] = 200,
    methods: Annotated[
        str | None, typer.Option(help="Names with commas between; the baseline comes along.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Keys every draw.")] = 0,
    seeds: Annotated[int, typer.Option(help="How often a sampled reply is drawn anew.")] = 3,
    max_tokens: Annotated[int, typer.Option(help="Most tokens of a written reply.")] = 256,
    to: Annotated[
        Path | None, typer.Option("--out", help="Where values and tables go; a run goes on there.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare guidance and entropy shaping with the model alone, item by item, with intervals.

    Exit status 1 if a figure misses its goal.
    """
    from elision.evaluation.reasoning import Options, run, suite_named

    named = None if methods is None else tuple(name.strip() for name in methods.split(","))
    summary = run(
        suite=suite_named(suite), data=data, out=to, settings=settings_of(model=model),
        options=Options(
            n_items=items, methods=named, seed=seed, n_seeds=seeds, max_tokens=max_tokens
        ),
        console=err if as_json else out,
    )  # fmt: skip
    if as_json:
        write(shown(summary.to_json()), None)
    else:
        out.print(summary.to_markdown(), markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(1 if summary.missed else 0)
