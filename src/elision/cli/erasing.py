"""``elision memory erase|receipts|verify``: what is remembered goes, and a receipt stays."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer
from rich.table import Column, Table

from elision.cli.console import (
    Actor,
    AsJson,
    Home,
    Tenant,
    To,
    actor_of,
    memory_of,
    out,
    read,
    register_of,
    settings_of,
    shown,
    write,
)
from elision.cli.memory import Kinds, Names
from elision.errors import ConfigError, RequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from elision.settings import Settings


def add_to(app: typer.Typer) -> None:
    """Hang the commands into *app*."""
    app.command("erase")(erase)
    app.command("receipts")(receipts)
    app.command("verify")(verify)


def erase(
    namespace: Names = None,
    record: Annotated[list[str] | None, typer.Option("--id", help="A record; repeat it.")] = None,
    subject: Annotated[str | None, typer.Option(help="A person whom records are about.")] = None,
    kind: Kinds = None,
    older_than_days: Annotated[
        float | None, typer.Option(min=0, help="Not changed for so long.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="A forget target that records concern.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of the tenant's.")] = False,
    reason: Annotated[str, typer.Option(help="Why, as a code; it stands in the receipt.")] = (
        "request"
    ),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    to: To = None,
    actor: Actor = None,
    home: Home = None,
    tenant: Tenant = None,
) -> None:
    """Erase the records that meet every condition, what was made of them, and every copy."""
    from elision.memory.erasure.selector import Selector

    settings = settings_of(home=home, tenant=tenant)
    selector = Selector(
        tenant=settings.tenant,
        namespace=tuple(namespace) if namespace else None,
        ids=tuple(record) if record else None,
        subject=subject,
        kinds=tuple(kind) if kind else None,
        older_than_s=None if older_than_days is None else older_than_days * 86_400,
        matching=_concerned(settings, target),
    )
    if everything != (selector.is_scope and not selector.namespace):
        raise ConfigError("name what to erase by at least one condition, or --all and none")
    with memory_of(settings) as memory:
        counts = memory.eraser.plan(selector).counts
        table = Table("table", "rows")
        for name, n in counts.items():
            table.add_row(name, f"{n:,}")
        out.print(table)
        if dry_run or not (yes or typer.confirm("Erase them for good?")):
            return
        receipt = memory.erase(selector, reason=reason, actor=actor_of(actor))
    out.print(f"{receipt.id} is {receipt.state}", highlight=False)
    if to is not None:
        write(shown(receipt.to_body()), to)


def receipts(as_json: AsJson = False, home: Home = None, tenant: Tenant = None) -> None:
    """List what was erased when, by whom and why."""
    settings = settings_of(home=home, tenant=tenant)
    with memory_of(settings) as memory:
        found = memory.eraser.receipts(settings.tenant)
    if as_json:
        write(b"".join(orjson.dumps(one.to_body()) + b"\n" for one in found), None)
        return
    table = Table(Column("id", no_wrap=True), "when", "who", "why", "state", "records")
    for one in found:
        table.add_row(
            one.id, one.at, one.actor, one.reason, one.state, str(one.counts.get("records", 0))
        )
    out.print(table)


def verify(
    file: Annotated[Path, typer.Argument(help="A receipt; - is standard input.")],
    home: Home = None,
) -> None:
    """Say whether a receipt is genuine and nothing has come back; exit status 1 if not."""
    from elision.memory.erasure.receipts import Receipt

    try:
        body = orjson.loads(read(file))
        receipt = Receipt.from_body(body if isinstance(body, dict) else {})
    except (orjson.JSONDecodeError, RequestError) as exc:
        raise ConfigError(f"{str(file)!r} is no receipt") from exc
    with memory_of(settings_of(home=home)) as memory:
        genuine = memory.eraser.verify(receipt)
    told = "genuine, and nothing has come back" if genuine else "altered, foreign, or undone"
    out.print(told, style="green" if genuine else "bold red", highlight=False)
    raise typer.Exit(0 if genuine else 1)


def _concerned(settings: Settings, target: str | None) -> Callable[[str], bool] | None:
    from elision.middleware.screening import RegisterScreen

    if target is None:
        return None
    with register_of(settings) as register:
        return RegisterScreen(register).concerned(settings.tenant, target)
