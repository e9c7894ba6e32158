"""``elision atlas report|playbook``: what agents did, what it cost, and what they learned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer
from rich.markup import escape
from rich.table import Column, Table

from elision.cli.console import (
    AsJson,
    Home,
    Tenant,
    memory_of,
    namespace_of,
    out,
    settings_of,
    shown,
    write,
)
from elision.cli.memory import Names
from elision.errors import ConfigError

if TYPE_CHECKING:
    from elision.agents.atlas.report import Row
    from elision.memory.learning.attribution import Effect
    from elision.memory.memory import Memory
    from elision.memory.records import Scope

app = typer.Typer(help="See what agents learned and what it brought.", no_args_is_help=True)

_MOST = 100_000
_CHAT = ("chat",)


@app.command("report")
def report(
    namespace: Names = None,
    control: Annotated[
        list[str] | None,
        typer.Option(help="Labels of a namespace with the same tasks and no memory; repeat it."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw it there too: .svg, .png or .pdf; needs a control.")
    ] = None,
    as_json: AsJson = False,
    home: Home = None,
    tenant: Tenant = None,
) -> None:
    """Tell success, tokens and cost over the episodes, beside a control without memory.

    The control is the same tasks in the same order under another namespace, with
    `elision.memory.learning` at `shadow`: what memory would show is noted, and nothing shown.
    """
    from elision.agents.atlas import report as reports
    from elision.agents.atlas.plot import plot as draw
    from elision.agents.atlas.report_table import markdown

    settings = settings_of(home=home, tenant=tenant)
    with memory_of(settings) as memory:
        with_memory = rows_of(memory, namespace_of(settings, namespace or [*_CHAT]))
        without = rows_of(memory, namespace_of(settings, control)) if control else ()
    if not control:
        if plot is not None:
            raise ConfigError("a plot compares two arms; name the other with --control")
        _alone(reports.arm(with_memory), as_json=as_json)
        return
    told = reports.report([with_memory], [without])
    if plot is not None:
        draw([with_memory], [without], plot)
    if as_json:
        write(told.to_json().encode() + b"\n", None)
        return
    write(markdown(told).encode(), None)


@app.command("playbook")
def playbook(
    namespace: Names = None, as_json: AsJson = False, home: Home = None, tenant: Tenant = None
) -> None:
    """List what was learned: each entry, its state, and what showing it did to the reward."""
    from elision.memory.learning.states import State
    from elision.middleware.gateway.memory.objects import effect_object

    settings = settings_of(home=home, tenant=tenant)
    scope = namespace_of(settings, namespace or [*_CHAT])
    with memory_of(settings) as memory:
        entries = memory.playbook.entries(scope, states=tuple(State))
        effects = {one.id: memory.playbook.effect(scope.tenant, one.id) for one in entries}
    if as_json:
        told = (
            {"id": one.id, "state": one.state, "imperative": one.imperative}
            | {"effect": effect_object(effects[one.id])}
            for one in entries
        )
        write(b"".join(orjson.dumps(one) + b"\n" for one in told), None)
        return
    table = Table(Column("id", no_wrap=True), "state", "when", "what to do", "effect on reward")
    for one in entries:
        pattern, imperative = escape(one.cue.pattern), escape(one.imperative)
        table.add_row(one.id, one.state.value, pattern, imperative, _effect(effects[one.id]))
    out.print(table)


def rows_of(memory: Memory, scope: Scope) -> tuple[Row, ...]:
    """Return the episodes of exactly *scope* as a report reads them, in their order."""
    from elision.agents.atlas.report import Row

    episodes = memory.episodes
    return tuple(
        Row(
            n=n,
            success=one.success,
            reward=one.reward,
            tokens_student=sum(
                row.tokens_in + row.tokens_out
                for row in episodes.spent(scope.tenant, one.id)
                if row.role == "student"
            ),
            tokens_total=one.tokens,
            cost=one.cost,
        )
        for n, one in enumerate(episodes.list(scope, limit=_MOST), 1)
    )


def _alone(arm: object, *, as_json: bool) -> None:
    """Show the figures of one arm; without a control they say nothing of what memory brought."""
    from dataclasses import asdict

    figures = asdict(arm)  # type: ignore[call-overload]
    if as_json:
        write(shown(figures), None)
        return
    table = Table("figure", "value")
    for name, value in figures.items():
        if isinstance(value, dict):
            value = f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"
        table.add_row(name, "unknown" if value is None else f"{value}")
    out.print(table)


def _effect(effect: Effect | None) -> str:
    if effect is None:
        return "unmeasured"
    low, high = effect.reward.interval
    return f"{effect.reward.delta:+.3f} ({low:+.3f} to {high:+.3f})"
