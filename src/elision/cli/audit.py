"""``elision audit``: who did what when, and whether the log and the receipts are genuine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.table import Table

from elision.cli.console import (
    AsJson,
    Home,
    Tenant,
    To,
    out,
    read,
    read_values,
    register_of,
    settings_of,
    shown,
    write,
)
from elision.errors import ConfigError

app = typer.Typer(help="Read and verify the audit log.", no_args_is_help=True)

_RECEIPT = "suppression-receipt"


@app.command("list")
def list_(
    after: Annotated[int, typer.Option(min=0, help="Only entries behind this place.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most as many.")] = 100,
    as_json: AsJson = False,
    home: Home = None,
    tenant: Tenant = None,
) -> None:
    """List who did what to which target when, oldest first."""
    settings = settings_of(home=home, tenant=tenant)
    with register_of(settings) as register:
        entries = register.audit.entries(settings.tenant, after=after, limit=limit)
    if as_json:
        write(b"".join(orjson.dumps(entry.to_body()) + b"\n" for entry in entries), None)
        return
    table = Table("place", "when", "who", "what", "target", "details")
    for entry in entries:
        details = ", ".join(f"{key}: {value}" for key, value in entry.details.items())
        table.add_row(str(entry.seq), entry.ts, entry.actor, entry.action, entry.object_id, details)
    out.print(table)


@app.command("verify")
def verify(
    file: Annotated[
        Path | None, typer.Argument(help="An exported log, or a receipt; none: the register's log.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="Public key in PEM; else the register's.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A checkpoint kept elsewhere; of several, the last counts.")
    ] = None,
    home: Home = None,
) -> None:
    """Verify the log, an exported log or a receipt; exit status 1 if something is wrong."""
    ok, told = _verified(file, key, checkpoint, home)
    out.print(told, style="green" if ok else "bold red", highlight=False)
    raise typer.Exit(0 if ok else 1)


def _verified(
    file: Path | None, key: Path | None, checkpoint: Path | None, home: Path | None
) -> tuple[bool, str]:
    from elision.guards.register.audit import verify_export

    expected = None if checkpoint is None else _checkpoint(checkpoint)
    if file is None:
        if key is not None:
            raise ConfigError("the register's own log has its own key; give --key with a file")
        with register_of(settings_of(home=home)) as register:
            return _told(register.audit.verify(expected))
    pem = _key(key, home)
    if (receipt := _receipt(read(file))) is not None:
        return _receipt_told(receipt, pem)
    return _told(verify_export(read(file).splitlines(), pem, expected))


def _receipt(data: bytes) -> dict[str, Any] | None:
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return body if isinstance(body, dict) and body.get("type") == _RECEIPT else None


def _receipt_told(receipt: dict[str, Any], pem: str) -> tuple[bool, str]:
    from elision.guards.evidence.receipts import verify_receipt

    if verify_receipt(receipt, pem):
        return True, f"the receipt is genuine, issued {receipt.get('issued_at')}"
    return False, "the receipt is not genuine: it was altered, or signed with another key"


def _told(found: Any) -> tuple[bool, str]:
    if found.ok:
        return True, f"the log is as it was written: {found.count} entries"
    return False, f"the log is wrong at place {found.first_bad}: {found.why}"


def _key(key: Path | None, home: Path | None) -> str:
    if key is not None:
        return read(key).decode("ascii", errors="replace")
    with register_of(settings_of(home=home)) as register:
        return register.audit.public_key()


def _checkpoint(path: Path) -> Any:
    from elision.guards.register.checkpoints import Checkpoint

    values = _one(read(path)) or read_values(path)
    if not values:
        raise ConfigError(f"{str(path)!r} holds no checkpoint")
    return Checkpoint.from_body(values[-1])


def _one(data: bytes) -> list[Any]:
    try:
        return [orjson.loads(data)]
    except orjson.JSONDecodeError:
        return []


@app.command("checkpoint")
def checkpoint(to: To = None, home: Home = None) -> None:
    """Sign how far the log has come; keep it where the log is not."""
    with register_of(settings_of(home=home)) as register:
        write(shown(register.audit.checkpoint().to_body()), to)


@app.command("key")
def key(to: To = None, home: Home = None) -> None:
    """Write the public key that receipts, checkpoints and exports are verified with."""
    with register_of(settings_of(home=home)) as register:
        write(register.audit.public_key().encode(), to)


@app.command("export")
def export(to: To = None, home: Home = None, tenant: Tenant = None) -> None:
    """Write the whole chain, an entry a line; of other tenants' entries only the links."""
    settings = settings_of(home=home, tenant=tenant)
    with register_of(settings) as register:
        lines = [orjson.dumps(line) + b"\n" for line in register.audit.export(settings.tenant)]
    write(b"".join(lines), to)
