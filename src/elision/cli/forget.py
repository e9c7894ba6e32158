"""``elision forget add|list|show|preview|test``: targets are registered and looked at."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from elision.cli.console import (
    Actor,
    AsJson,
    Home,
    TargetId,
    Tenant,
    actor_of,
    out,
    read_values,
    register_of,
    settings_of,
    shown,
    warn,
    write,
)

if TYPE_CHECKING:
    from elision.guards.evidence.preview import Preview
    from elision.guards.targets import ForgetTarget

app = typer.Typer(help="Suppress subjects at inference time.", no_args_is_help=True)

Texts = list[str] | None
When = Annotated[str | None, typer.Option(help="ISO 8601 with a zone.", metavar="WHEN")]


@app.command("add")
def add(
    title: Annotated[str, typer.Option(help="What you call it.")],
    phrase: Annotated[Texts, typer.Option(help="A text that must not leave.")] = None,
    name: Annotated[Texts, typer.Option(help="A surface name, for detection.")] = None,
    probe: Annotated[Texts, typer.Option(help="A question that asks for it.")] = None,
    passage: Annotated[Texts, typer.Option(help="A text not to be repeated.")] = None,
    answer: Annotated[Texts, typer.Option(help="Not to be said in other words either.")] = None,
    exception: Annotated[Texts, typer.Option(help="A prompt about somebody else.")] = None,
    kind: Annotated[str, typer.Option(help="person, organisation, work, fact, ...")] = "string",
    action: Annotated[str, typer.Option(help="restrict, refuse, redact, observe")] = "restrict",
    allow_echo: Annotated[
        bool, typer.Option("--allow-echo", help="Who wrote a phrase may hear it back.")
    ] = False,
    for_model: Annotated[Texts, typer.Option(help="Hold for this model only.")] = None,
    for_key: Annotated[Texts, typer.Option(help="Hold for this caller's key only.")] = None,
    effective_at: When = None,
    expires_at: When = None,
    review_at: When = None,
    case_ref: Annotated[str | None, typer.Option(help="Your own reference.")] = None,
    legal_basis: Annotated[str | None, typer.Option(help="Why it is suppressed.")] = None,
    draft: Annotated[bool, typer.Option("--draft", help="Keep it, enforce nothing yet.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be; store nothing.")
    ] = False,
    actor: Actor = None,
    home: Home = None,
    tenant: Tenant = None,
) -> None:
    """Register a target; an active one holds from the next request on, running servers included."""
    from elision.guards.targets import ForgetTarget

    settings = settings_of(home=home, tenant=tenant)
    phrases = [{"text": text, "allow_echo": allow_echo} for text in phrase or ()]
    given: dict[str, Any] = {
        "names": name, "probes": probe, "passages": passage, "answers": answer,
        "exceptions": exception, "effective_at": effective_at, "expires_at": expires_at,
        "review_at": review_at, "case_ref": case_ref, "legal_basis": legal_basis,
    }  # fmt: skip
    body = {key: value for key, value in given.items() if value is not None} | {
        "title": title, "kind": kind, "action": action, "phrases": phrases,
        "scope": {"models": for_model or [], "keys": for_key or []},
    }  # fmt: skip
    target = ForgetTarget.from_body(body, tenant=settings.tenant)
    if dry_run:
        _try(target)
        return
    with register_of(settings) as register:
        done = register.add(target, actor=actor_of(actor), draft=draft)
    out.print(f"{done.target.id} is {done.target.state} (epoch {done.epoch})", highlight=False)
    warn(done.warnings)


def _try(target: ForgetTarget) -> None:
    from elision.guards.evidence.selftest import self_test
    from elision.guards.phrases.advice import advise

    tested = self_test(target)
    cases, leaked = sum(tested.cases.values()), sum(tested.leaked.values())
    out.print(f"nothing was stored; {cases - leaked} of {cases} spellings are found")
    warn(advise(target))


@app.command("list")
def list_(
    state: Annotated[Texts, typer.Option(help="Only these states; repeat it.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Those out of force too.")] = False,
    home: Home = None,
    tenant: Tenant = None,
) -> None:
    """List the targets, in the order of their registration."""
    from typing import get_args

    from elision.errors import ConfigError
    from elision.guards.targets import State

    settings = settings_of(home=home, tenant=tenant)
    known: tuple[State, ...] = get_args(State)
    if not {*(state or ())} <= {*known}:
        raise ConfigError(f"there is no such state; there are {', '.join(known)}")
    asked: Collection[State] = tuple(name for name in known if name in (state or ()))
    wanted = asked if state else known if every else None
    table = Table("id", "title", "kind", "action", "state", "phrases")
    with register_of(settings) as register:
        for target in register.list(settings.tenant, states=wanted):
            table.add_row(
                target.id, escape(target.title), target.kind, target.action, target.state,
                str(len(target.phrases)),
            )  # fmt: skip
    out.print(table)


@app.command("show")
def show(
    target_id: TargetId, as_json: AsJson = False, home: Home = None, tenant: Tenant = None
) -> None:
    """Show one target, every word of it."""
    settings = settings_of(home=home, tenant=tenant)
    with register_of(settings) as register:
        body = register.get(settings.tenant, target_id).to_body()
    if as_json:
        write(shown(body), None)
        return
    table = Table(show_header=False, box=None)
    for key, value in body.items():
        if value not in (None, "", [], {}):
            table.add_row(f"[bold]{key}[/]", _line(value))
    out.print(table)


def _line(value: Any) -> Any:
    from rich.text import Text

    if not isinstance(value, list):
        return Text(str(value))
    return Text("\n".join(item["text"] if isinstance(item, dict) else item for item in value))


@app.command("preview")
def preview(
    target_id: TargetId,
    corpus: Annotated[Path, typer.Option(help="JSON lines: texts, or objects with a text.")],
    as_json: AsJson = False,
    actor: Actor = None,
    home: Home = None,
    tenant: Tenant = None,
) -> None:
    """Count what a target would meet in a corpus; a draft is marked as previewed."""
    from elision.guards.evidence.impact import lines_of
    from elision.guards.evidence.preview import preview as count

    settings = settings_of(home=home, tenant=tenant)
    texts = [line.text for line in lines_of(read_values(corpus), "corpus")]
    with register_of(settings) as register:
        target = register.get(settings.tenant, target_id)
        found = count(target, texts, active=register.active(settings.tenant))
        if target.state == "draft":
            register.mark_previewed(settings.tenant, target_id, actor=actor_of(actor))
    if as_json:
        write(shown(found.to_body(examples=True)), None)
    else:
        _print(found)


def _print(found: Preview) -> None:
    low, high = found.blocked.interval
    out.print(
        f"{found.blocked.hits} of {found.blocked.n} texts hold a phrase: "
        f"{found.blocked.share:.2%} (95 %: {low:.2%} to {high:.2%})",
        highlight=False,
    )
    table = Table("phrase", "texts", "hits", "forms")
    for phrase, forms in sorted(found.by_phrase.items()):
        hits, told = sum(forms.values()), ", ".join(f"{k} {n}" for k, n in forms.items())
        table.add_row(str(phrase), str(found.texts[phrase]), str(hits), told)
    if found.by_phrase:
        out.print(table)
    for example in found.examples:
        out.print(f"text {example.text}: {example.excerpt}", highlight=False, markup=False)
    for collision in found.collisions:
        out.print(
            f"phrase {collision.ours} collides with {collision.target_id} ({collision.kind})",
            highlight=False,
        )
    warn(found.warnings)


@app.command("test")
def try_(
    text: Annotated[str, typer.Argument(help="A text to look through.")],
    home: Home = None,
    tenant: Tenant = None,
) -> None:
    """Show which phrase matches where in a text, and in which normal form."""
    from rich.text import Text

    from elision.guards.guard import Guard

    settings = settings_of(home=home, tenant=tenant)
    with register_of(settings) as register:
        targets = register.active(settings.tenant)
        guard = Guard.compile(targets, epoch=register.epoch(settings.tenant))
    by_id = {target.id: target for target in targets}
    table = Table("target", "phrase", "form", "from", "to", "in the text")
    hits = guard.scan(text)
    for hit in hits:
        phrase = by_id[hit.target_id].phrases[hit.phrase].text
        found = Text(text[hit.start : hit.end])
        table.add_row(hit.target_id, Text(phrase), hit.form, str(hit.start), str(hit.end), found)
    out.print(table if hits else "nothing matches")
    raise typer.Exit(1 if hits else 0)
