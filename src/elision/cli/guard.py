"""``elision guard``: the attack suite against a target of one's own."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from elision.cli.console import AsJson, Home, Tenant, out, register_of, settings_of, shown, write

app = typer.Typer(help="Try what the guard withstands.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Try what the guard withstands."""


@app.command()
def attack(
    target_id: Annotated[str, typer.Option("--target", help="See `elision forget list`.")],
    quick: Annotated[bool, typer.Option("--quick", help="Fewer cases.")] = False,
    as_json: AsJson = False,
    home: Home = None,
    tenant: Tenant = None,
) -> None:
    """Run the attack suite for a target, beside no guard, a filter and a guardrail prompt.

    The model behind it is scripted: it knows the target's phrases and tells them in whatever
    writing it is asked for. Exit status 1 if something leaked that the guard enforces.
    """
    from elision.evaluation.attack_report import attack_report

    settings = settings_of(home=home, tenant=tenant)
    with register_of(settings) as register:
        target = register.get(settings.tenant, target_id)
    report = asyncio.run(attack_report(target, quick=quick))
    if as_json:
        write(shown(report.to_body()), None)
    else:
        for line in report.lines():
            out.print(line, highlight=False, markup=False)
    raise typer.Exit(0 if report.holds else 1)
