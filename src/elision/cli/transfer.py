"""``elision forget receipt|export|import``: what leaves a register, and what comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import orjson
import typer

from elision.cli.console import (
    Actor,
    Home,
    TargetId,
    Tenant,
    To,
    actor_of,
    out,
    read_values,
    register_of,
    settings_of,
    shown,
    write,
)


def add_to(app: typer.Typer) -> None:
    """Hang the commands into *app*."""
    app.command("receipt")(receipt)
    app.command("export")(export)
    app.command("import")(import_)


def receipt(target_id: TargetId, to: To = None, home: Home = None, tenant: Tenant = None) -> None:
    """Sign a receipt: what is suppressed how, without a word of it."""
    from elision.guards.evidence.receipts import receipt_for

    settings = settings_of(home=home, tenant=tenant)
    with register_of(settings) as register:
        write(shown(receipt_for(register, settings.tenant, target_id)), to)


def export(to: To = None, home: Home = None, tenant: Tenant = None) -> None:
    """Write every target in clear, one a line, and a signed manifest."""
    settings = settings_of(home=home, tenant=tenant)
    with register_of(settings) as register:
        lines = [orjson.dumps(line) + b"\n" for line in register.export(settings.tenant)]
    write(b"".join(lines), to)


def import_(
    file: Annotated[Path, typer.Argument(help="What an export wrote; - is standard input.")],
    actor: Actor = None,
    home: Home = None,
    tenant: Tenant = None,
) -> None:
    """Take in what an export wrote, all of it or nothing."""
    settings = settings_of(home=home, tenant=tenant)
    lines = read_values(file)
    with register_of(settings) as register:
        done = register.import_(settings.tenant, lines, actor=actor_of(actor))
    out.print(f"{len(done)} targets were taken in", highlight=False)
