"""The command line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from elision.errors import ConfigError, ElisionError
from elision.settings import Settings

if TYPE_CHECKING:
    from elision.contract import Delta
    from elision.guards.register import Register

app = typer.Typer(
    name="elision",
    help="A decoding proxy that decides, token by token, what a model may say.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
forget = typer.Typer(help="Suppress subjects at inference time.", no_args_is_help=True)
app.add_typer(forget, name="forget")

out = Console()
err = Console(stderr=True)

Model = Annotated[str | None, typer.Option("--model", "-m", help="Alias, hub id or folder.")]
Profile = Annotated[str | None, typer.Option("--profile", "-p", help="See `elision profiles`.")]
Home = Annotated[Path | None, typer.Option("--home", help="Where state lives.")]
Tenant = Annotated[str | None, typer.Option("--tenant", help="Whose register.")]
Upstream = Annotated[
    str | None, typer.Option("--upstream", help="Base URL of a server to stand before.")
]


def main() -> None:
    """Run the command line; errors are one line that says what to do, and exit status 1."""
    try:
        app()
    except ElisionError as exc:
        err.print(f"[bold red]error:[/] {exc}", highlight=False)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 picks one.")] = None,
    model: Model = None,
    profile: Profile = None,
    home: Home = None,
    tenant: Tenant = None,
    upstream: Upstream = None,
    allow_open: Annotated[
        bool | None, typer.Option("--allow-open", help="Listen beyond loopback without a key.")
    ] = None,
) -> None:
    """Serve an OpenAI-compatible endpoint."""
    from elision.middleware.assembly import assemble
    from elision.middleware.gateway.serve import check_exposure, log_to_stderr
    from elision.middleware.gateway.serve import serve as run

    settings = _settings(
        host=host, port=port, model=model, profile=profile, home=home, tenant=tenant,
        upstream=upstream, allow_open=allow_open,
    )  # fmt: skip
    check_exposure(settings)
    log_to_stderr()
    with _progress() as progress:
        pipeline = assemble(settings, progress=progress)
    run(pipeline, settings)


@app.command()
def chat(
    prompt: Annotated[
        str | None, typer.Argument(help="One question; none: a conversation.")
    ] = None,
    model: Model = None,
    profile: Profile = None,
    home: Home = None,
    tenant: Tenant = None,
    upstream: Upstream = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Most tokens per reply.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes a sampled reply repeatable.")] = None,
) -> None:
    """Ask once, or talk."""
    from elision.middleware.assembly import assemble
    from elision.middleware.client import Client

    settings = _settings(model=model, profile=profile, home=home, tenant=tenant, upstream=upstream)
    options = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed}
    with _progress() as progress:
        client = Client(assemble(settings, progress=progress))
    with client:
        if prompt is not None:
            _say(client.stream(prompt, **options))
            return
        _converse(lambda turns: client.stream(turns, **options))


@app.command()
def pull(
    name: Annotated[str, typer.Argument(help="Alias, hub id (org/name) or folder.")],
    force: Annotated[bool, typer.Option("--force", help="Fetch it again.")] = False,
) -> None:
    """Fetch a model, verify it, and store it for good."""
    from elision.middleware.models.pull import pull as fetch

    with _progress() as progress:
        folder = fetch(name, cache=_settings().cache, progress=progress, force=force)
    out.print(f"{name} is in {folder}", highlight=False)


@app.command()
def profiles() -> None:
    """List the profiles."""
    from elision.middleware.profiles import PROFILES

    table = Table("profile", "what it does")
    for profile in PROFILES.values():
        table.add_row(profile.name, profile.summary)
    out.print(table)


@app.command()
def bench(
    name: Annotated[str | None, typer.Argument(help="A bench, or `all`; see --list.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="End within 50 s.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One line per figure.")] = False,
    data: Annotated[Path | None, typer.Option(help="Folder with larger data.")] = None,
    write: Annotated[Path | None, typer.Option(help="Rewrite this machine's table there.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the benches.")] = False,
) -> None:
    """Measure the project's figures on this machine."""
    from elision.evaluation import bench as benches

    if list_ or name is None:
        out.print(benches.listing())
        return
    results = benches.run(name, settings=_settings(), quick=quick, data=data, as_json=json)
    if write is not None:
        benches.write_table(write, results)
    if any(result.missed for result in results):
        err.print("some figures miss their goal", style="yellow")


@forget.command("add")
def forget_add(
    title: Annotated[str, typer.Option(help="What you call it.")],
    phrase: Annotated[list[str] | None, typer.Option(help="A text that must not leave.")] = None,
    name: Annotated[list[str] | None, typer.Option(help="A surface name, for detection.")] = None,
    kind: Annotated[str, typer.Option(help="person, organisation, work, fact, ...")] = "string",
    action: Annotated[str, typer.Option(help="restrict, refuse, redact, observe")] = "restrict",
    allow_echo: Annotated[
        bool, typer.Option("--allow-echo", help="Who wrote a phrase may hear it back.")
    ] = False,
    home: Home = None,
    tenant: Tenant = None,
) -> None:
    """Register a target; it holds from the next request on, running servers included."""
    from elision.guards.targets import ForgetTarget

    settings = _settings(home=home, tenant=tenant)
    phrases = [{"text": text, "allow_echo": allow_echo} for text in phrase or ()]
    body: dict[str, Any] = {
        "title": title, "kind": kind, "names": name or [], "phrases": phrases, "action": action,
    }  # fmt: skip
    with _register(settings) as register:
        done = register.add(ForgetTarget.from_body(body, tenant=settings.tenant))
    out.print(f"{done.target.id} is active (epoch {done.epoch})", highlight=False)
    for warning in done.warnings:
        err.print(f"[yellow]warning:[/] {warning['message']}", highlight=False)


@forget.command("list")
def forget_list(home: Home = None, tenant: Tenant = None) -> None:
    """List the targets in force."""
    settings = _settings(home=home, tenant=tenant)
    table = Table("id", "title", "kind", "action", "phrases")
    with _register(settings) as register:
        for target in register.active(settings.tenant):
            table.add_row(
                target.id, target.title, target.kind, target.action, str(len(target.phrases))
            )
    out.print(table)


@forget.command("revoke")
def forget_revoke(
    target_id: Annotated[str, typer.Argument(help="See `elision forget list`.")],
    home: Home = None,
    tenant: Tenant = None,
) -> None:
    """Stop enforcing a target from the next request on."""
    settings = _settings(home=home, tenant=tenant)
    with _register(settings) as register:
        epoch = register.revoke(settings.tenant, target_id)
    out.print(f"{target_id} is revoked (epoch {epoch})", highlight=False)


@forget.command("test")
def forget_test(
    text: Annotated[str, typer.Argument(help="A text to look through.")],
    home: Home = None,
    tenant: Tenant = None,
) -> None:
    """Show which phrase matches where in a text, and in which normal form."""
    from elision.guards.guard import Guard

    settings = _settings(home=home, tenant=tenant)
    with _register(settings) as register:
        targets = register.active(settings.tenant)
        guard = Guard.compile(targets, epoch=register.epoch(settings.tenant))
    by_id = {target.id: target for target in targets}
    table = Table("target", "phrase", "form", "from", "to", "in the text")
    hits = guard.scan(text)
    for hit in hits:
        phrase = by_id[hit.target_id].phrases[hit.phrase].text
        found = text[hit.start : hit.end]
        table.add_row(hit.target_id, phrase, hit.form, str(hit.start), str(hit.end), found)
    out.print(table if hits else "nothing matches")
    raise typer.Exit(1 if hits else 0)


def _settings(**given: Any) -> Settings:
    """Return the settings, what the command line gave on top."""
    from pydantic import ValidationError

    try:
        return Settings(**{key: value for key, value in given.items() if value is not None})
    except ValidationError as exc:
        where = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors())
        raise ConfigError(f"a setting cannot be used: {where}; see docs/settings.md") from exc


@contextmanager
def _register(settings: Settings) -> Iterator[Register]:
    from elision.guards.register import Register

    register = Register.open(settings.home)
    try:
        yield register
    finally:
        register.close()


def _progress() -> Any:
    from elision.middleware.models.progress import RichProgress

    return RichProgress()


def _say(deltas: Iterator[Delta]) -> str:
    said = []
    for delta in deltas:
        said.append(delta.text)
        sys.stdout.write(delta.text)
        sys.stdout.flush()
    sys.stdout.write("\n")
    return "".join(said)


def _converse(stream: Callable[[list[dict[str, str]]], Iterator[Delta]]) -> None:
    """Talk until the input ends; an empty line is skipped, /new starts afresh."""
    turns: list[dict[str, str]] = []
    err.print("Ctrl-D ends, /new starts afresh.", style="dim")
    while True:
        try:
            line = err.input("[bold]> [/]").strip()
        except EOFError:
            return
        if line == "/new":
            turns.clear()
        elif line:
            turns.append({"role": "user", "content": line})
            turns.append({"role": "assistant", "content": _say(stream(turns))})
