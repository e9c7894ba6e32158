"""``elision trace``: an answer, and what happened at each of its tokens."""

from __future__ import annotations

from dataclasses import asdict
from math import isnan
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from elision.cli.console import (
    AsJson,
    Assistants,
    Elision,
    Home,
    Model,
    Profile,
    Tenant,
    assistants_of,
    object_of,
    out,
    progress,
    settings_of,
    shown,
    write,
)

if TYPE_CHECKING:
    from elision.contract import Choice, Completion, TokenTrace

_SHADES = ((1.0, "bold red"), (0.1, "yellow"), (0.01, "green"), (0.0, "dim"))
"""The colour of a row from how many nats of divergence on."""


def trace(
    prompt: Annotated[str, typer.Argument(help="One question.")],
    model: Model = None,
    profile: Profile = None,
    home: Home = None,
    tenant: Tenant = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Most tokens of the reply.")] = 64,
    seed: Annotated[int | None, typer.Option(help="Makes a sampled reply repeatable.")] = None,
    assistant: Assistants = None,
    elision: Elision = "{}",
    as_json: AsJson = False,
) -> None:
    """Ask once, and show what happened at each token; colours go by the divergence."""
    from elision.middleware.assembly import assemble
    from elision.middleware.client import Client

    more = object_of(elision)
    settings = settings_of(
        model=model, profile=profile, home=home, tenant=tenant, assistants=assistants_of(assistant)
    )
    sampling = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed}
    with progress() as bar:
        client = Client(assemble(settings, progress=bar))
    with client:
        done = client.chat(prompt, trace=True, elision=more, **sampling)
    if as_json:
        write(shown(body_of(done)), None)
        return
    (choice,) = done.choices
    out.print(table_of(choice.trace))
    out.print(summary_of(choice), highlight=False)


def body_of(done: Completion) -> dict[str, Any]:
    """Return what ``--json`` prints: text, how it ended, the trace, the report."""
    (choice,) = done.choices
    told = {"text": choice.text, "finish_reason": choice.finish}
    entries = [asdict(entry) for entry in choice.trace]
    return {**told, "trace": entries, "report": dict(done.report)}


def table_of(entries: tuple[TokenTrace, ...]) -> Table:
    """Return a table with a row per token; what a token writes is quoted, line ends escaped."""
    table = Table("token", header_style="bold")
    for name in ("H before → after", "p before → after", "KL", "banned"):
        table.add_column(name, justify="right")
    table.add_column("acted")
    if any(entry.branches for entry in entries):
        table.add_column("branches")
    for entry in entries:
        cells = _cells(entry)[: len(table.columns)]
        table.add_row(*map(Text, cells), style=_shade(entry.kl))
    return table


def summary_of(choice: Choice) -> str:
    """Return one line of sums; redacted markers have no numbers and count for nothing."""
    told = [entry for entry in choice.trace if not isnan(entry.kl)]
    kl, banned = sum(entry.kl for entry in told), sum(entry.banned for entry in told)
    n, acted = len(told), sum(bool(entry.acted) for entry in told)
    mean = kl / n if n else 0.0
    share = f"{banned / n:.2%}" if n else "nothing"
    return (
        f"{n} tokens, ended by {choice.finish}; recipes acted at {acted}; "
        f"KL {mean:.3f} nats a token; banned {share} of the probability"
    )


def _cells(entry: TokenTrace) -> tuple[str, ...]:
    return (
        repr(entry.token),  # a control character must not reach the terminal
        f"{_number(entry.entropy_before)} → {_number(entry.entropy_after)}",
        f"{_number(entry.prob_before)} → {_number(entry.prob_after)}",
        _number(entry.kl),
        "" if entry.banned == 0 else _number(entry.banned),
        ", ".join(entry.acted),
        ", ".join(entry.branches),
    )


def _number(value: float) -> str:
    return "–" if isnan(value) else f"{value:.3f}"


def _shade(kl: float) -> str:
    return next((shade for least, shade in _SHADES if kl >= least), "dim")
