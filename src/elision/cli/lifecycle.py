"""``elision forget submit|approve|activate|...``: a target's way from draft to purged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from elision.cli.console import (
    Actor,
    Home,
    TargetId,
    Tenant,
    actor_of,
    out,
    register_of,
    settings_of,
)
from elision.errors import ConfigError

Reason = Annotated[str | None, typer.Option("--reason", help="Why, for the audit log.")]

_PLAIN = {
    "submit": "Hand a draft in: to whoever approves, or into force where nobody has to.",
    "approve": "Approve what somebody else has requested.",
    "activate": "Put a target in force now.",
    "suspend": "Take a target out of force for a while.",
    "resume": "Put a suspended target in force again.",
}


def add_to(app: typer.Typer) -> None:
    """Hang the commands into *app*."""
    for operation, does in _PLAIN.items():
        app.command(operation, help=does)(_plain(operation))
    app.command("revoke")(revoke)
    app.command("extend")(extend)
    app.command("purge")(purge)


def _plain(operation: str) -> Callable[..., None]:
    def change(
        target_id: TargetId,
        reason: Reason = None,
        actor: Actor = None,
        home: Home = None,
        tenant: Tenant = None,
    ) -> None:
        _apply(operation, target_id, actor, home=home, tenant=tenant, reason=reason)

    return change


def revoke(
    target_id: TargetId,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the audit log.")],
    actor: Actor = None,
    home: Home = None,
    tenant: Tenant = None,
) -> None:
    """Take a target out of force for good, from the next request on."""
    _apply("revoke", target_id, actor, home=home, tenant=tenant, reason=reason)


def extend(
    target_id: TargetId,
    expires_at: Annotated[
        str | None, typer.Option(help="ISO 8601 with a zone.", metavar="WHEN")
    ] = None,
    never: Annotated[bool, typer.Option("--never", help="Without an end.")] = False,
    reason: Reason = None,
    actor: Actor = None,
    home: Home = None,
    tenant: Tenant = None,
) -> None:
    """Give a target another end, or none."""
    from elision.guards.fields import moment_of

    if (expires_at is None) != never:
        raise ConfigError("say when it ends: write either --expires-at WHEN or --never")
    end = moment_of({"expires_at": expires_at}, "expires_at")
    _apply("extend", target_id, actor, home=home, tenant=tenant, reason=reason, expires_at=end)


def purge(
    target_id: TargetId,
    reason: Reason = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    actor: Actor = None,
    home: Home = None,
    tenant: Tenant = None,
) -> None:
    """Destroy the key of a revoked or expired target; its words are gone for good."""
    if not yes:
        typer.confirm("Its words cannot be had back. Go on?", abort=True)
    _apply("purge", target_id, actor, home=home, tenant=tenant, reason=reason)


def _apply(operation: str, target_id: str, actor: str | None, **given: Any) -> None:
    settings = settings_of(home=given.pop("home"), tenant=given.pop("tenant"))
    options = {k: v for k, v in given.items() if v is not None or k == "expires_at"}
    with register_of(settings) as register:
        change = getattr(register, operation)
        done = change(settings.tenant, target_id, actor=actor_of(actor), **options)
    out.print(f"{target_id} is {done.target.state} (epoch {done.epoch})", highlight=False)
