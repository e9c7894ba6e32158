"""``elision check``: a text is judged over every normal form and decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from elision.cli.console import (
    AsJson,
    Home,
    Tenant,
    out,
    read,
    register_of,
    settings_of,
    shown,
    write,
)


def check(
    text: Annotated[str, typer.Argument(help="A text to judge; - is standard input.")],
    as_json: AsJson = False,
    home: Home = None,
    tenant: Tenant = None,
) -> None:
    """Judge a text over every normal form and decoder; exit status 1 unless it may pass."""
    from elision.guards.detection.check import check as judge

    settings = settings_of(home=home, tenant=tenant)
    given = read(Path("-")).decode(errors="replace") if text == "-" else text
    with register_of(settings) as register:
        result = judge(register.active(settings.tenant), given)
    body = result.to_body()
    if as_json:
        write(shown(body), None)
    else:
        out.print(result.verdict if result.covered else f"{result.verdict} (not all was read)")
    if result.hits and not as_json:
        table = Table("target", "what", "level", "from", "to", "action")
        for hit in result.hits:
            what = f"{hit.what} {hit.phrase}"
            places = str(hit.start), str(hit.end)
            table.add_row(hit.target_id, what, hit.level, *places, hit.action)
        out.print(table)
    raise typer.Exit(0 if result.verdict == "allow" else 1)
