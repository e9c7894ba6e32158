"""``elision memory list|show|search|move|stats``: what is remembered is looked at."""

from __future__ import annotations

from typing import Annotated

import orjson
import typer
from rich.markup import escape
from rich.table import Column, Table

from elision.cli.console import (
    Actor,
    AsJson,
    Home,
    Tenant,
    actor_of,
    memory_of,
    namespace_of,
    out,
    settings_of,
    shown,
    write,
)

app = typer.Typer(help="See, move and erase what is remembered.", no_args_is_help=True)

Names = Annotated[
    list[str] | None,
    typer.Option("--namespace", "-n", help="A label of the namespace, widest first; repeat it."),
]
RecordId = Annotated[str, typer.Argument(help="See `elision memory list`.")]
Kinds = Annotated[list[str] | None, typer.Option("--kind", help="Only these; repeat it.")]
_WIDTH = 60


@app.command("list")
def list_(
    namespace: Names = None,
    kind: Kinds = None,
    state: Annotated[list[str] | None, typer.Option(help="Only these; repeat it.")] = None,
    after: Annotated[str | None, typer.Option(help="Go on behind this id.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most as many.")] = 100,
    as_json: AsJson = False,
    home: Home = None,
    tenant: Tenant = None,
) -> None:
    """List records, oldest first."""
    from elision.middleware.gateway.memory.objects import record_object

    settings = settings_of(home=home, tenant=tenant)
    scope = namespace_of(settings, namespace)
    with memory_of(settings) as memory:
        found = memory.store.list(
            scope, kinds=kind or (), states=state or (), after=after, limit=limit
        )
    if as_json:
        write(b"".join(orjson.dumps(record_object(one)) + b"\n" for one in found), None)
        return
    table = Table(Column("id", no_wrap=True), "namespace", "kind", "state", "trust", "text")
    for one in found:
        table.add_row(
            one.id, escape(" / ".join(one.scope.namespace)), one.kind, one.state,
            one.trust.name.lower(), escape(_brief(one.text or one.key)),
        )  # fmt: skip
    out.print(table)


@app.command("show")
def show(record_id: RecordId, home: Home = None, tenant: Tenant = None) -> None:
    """Show a record, every word of it; of an entry, what showing it did and how it moved."""
    from elision.errors import NotFoundError
    from elision.memory.learning.entries import ADVICE
    from elision.middleware.gateway.memory.objects import effect_object, record_object

    settings = settings_of(home=home, tenant=tenant)
    with memory_of(settings) as memory:
        for record in memory.store.find(settings.tenant, (record_id,)):
            body = record_object(record)
            if record.kind == ADVICE:
                effect = memory.playbook.effect(settings.tenant, record_id)
                moves = memory.playbook.moves(settings.tenant, record_id)
                told = [f"{move.source} -> {move.target}: {move.reason}" for move in moves]
                body |= {"effect": effect_object(effect), "moves": told}
            write(shown(body), None)
            return
    raise NotFoundError("there is no record of that id", code="record_not_found")


@app.command("search")
def search(
    query: Annotated[str, typer.Argument(help="What to compare with.")],
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="At most as many.")] = 10,
    namespace: Names = None,
    kind: Kinds = None,
    as_json: AsJson = False,
    home: Home = None,
    tenant: Tenant = None,
) -> None:
    """Find the records most similar to a text."""
    from elision.middleware.gateway.memory.objects import hit_object

    settings = settings_of(home=home, tenant=tenant)
    scope = namespace_of(settings, namespace)
    with memory_of(settings, encodes=True) as memory:
        found = memory.store.search(scope, query, k, kinds=kind or ())
    if as_json:
        write(b"".join(orjson.dumps(hit_object(hit)) + b"\n" for hit in found.hits), None)
        return
    table = Table("cosine", Column("id", no_wrap=True), "kind", "text")
    for hit in found.hits:
        record = hit.record
        cosine = "" if hit.similarity is None else f"{hit.similarity:.3f}"
        table.add_row(cosine, record.id, record.kind, escape(_brief(record.text)))
    out.print(table if found.hits else f"nothing found ({found.code})")


@app.command("move")
def move(
    record_id: RecordId,
    action: Annotated[
        str, typer.Argument(help="admit, approve, demote, quarantine, restore or retire")
    ],
    reason: Annotated[str, typer.Option(help="Why, as a code.")] = "",
    actor: Actor = None,
    home: Home = None,
    tenant: Tenant = None,
) -> None:
    """Move an entry of the playbook from one state to another."""
    from elision.errors import ConfigError
    from elision.memory.learning.states import Action

    known = [one.value for one in Action if one not in {Action.ERASE, Action.REVISE}]
    if action not in known:
        raise ConfigError(f"there is no such action; there are {', '.join(known)}")
    settings = settings_of(home=home, tenant=tenant)
    with memory_of(settings) as memory:
        entry = memory.playbook.act(
            settings.tenant, record_id, Action(action), actor=actor_of(actor), reason=reason
        )
    out.print(f"{entry.id} is {entry.state.value}", highlight=False)


@app.command("stats")
def stats(as_json: AsJson = False, home: Home = None, tenant: Tenant = None) -> None:
    """Count what is remembered."""
    settings = settings_of(home=home, tenant=tenant)
    with memory_of(settings) as memory:
        figures = dict(memory.store.stats(settings.tenant))
    if as_json:
        write(shown(figures), None)
        return
    table = Table("what", "how much")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.0f}")
    out.print(table)


def _brief(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…"
