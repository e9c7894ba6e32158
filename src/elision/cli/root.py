"""The command line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from elision.cli import (
    atlas,
    audit,
    check,
    erasing,
    evaluate,
    forget,
    guard,
    lifecycle,
    memory,
    moving,
    trace,
    transfer,
)
from elision.cli.console import (
    Assistants,
    Elision,
    Home,
    Model,
    Profile,
    Tenant,
    Upstream,
    assistants_of,
    err,
    object_of,
    out,
    progress,
    settings_of,
)
from elision.errors import ElisionError

if TYPE_CHECKING:
    from elision.contract import Delta
    from elision.middleware.models.progress import Progress
    from elision.settings import Settings

app = typer.Typer(
    name="elision",
    help="A decoding proxy that decides, token by token, what a model may say.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(forget.app, name="forget")
app.add_typer(audit.app, name="audit")
app.add_typer(evaluate.app, name="eval")
app.add_typer(guard.app, name="guard")
for group in (lifecycle, transfer):
    group.add_to(forget.app)
app.add_typer(memory.app, name="memory")
app.add_typer(atlas.app, name="atlas")
for part in (erasing, moving):
    part.add_to(memory.app)
app.command("check")(check.check)
app.command("trace")(trace.trace)


def main() -> None:
    """Run the command line; errors are one line that says what to do, and exit status 1."""
    try:
        app()
    except ElisionError as exc:
        err.print(f"[bold red]error:[/] {escape(str(exc))}", highlight=False)
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
    assistant: Assistants = None,
    engine: Annotated[
        str | None, typer.Option(help="auto, local, or vllm: started here, or --upstream.")
    ] = None,
    vllm_python: Annotated[
        Path | None, typer.Option(help="Interpreter that vLLM is installed for.")
    ] = None,
    vllm_arg: Annotated[
        list[str] | None,
        typer.Option(metavar="FLAG", help="A flag of vLLM's own, for one started here; repeat."),
    ] = None,
    drafts: Annotated[
        str | None, typer.Option(help="none, or chain: a vLLM started here drafts and has MTI.")
    ] = None,
    allow_open: Annotated[
        bool | None, typer.Option("--allow-open", help="Listen beyond loopback without a key.")
    ] = None,
) -> None:
    """Serve an OpenAI-compatible endpoint."""
    from elision.middleware.assembly import assemble
    from elision.middleware.gateway.serve import check_exposure, log_to_stderr
    from elision.middleware.gateway.serve import serve as run

    settings = settings_of(
        host=host, port=port, model=model, profile=profile, home=home, tenant=tenant,
        upstream=upstream, allow_open=allow_open, assistants=assistants_of(assistant),
        engine=engine, vllm_python=vllm_python, vllm_args=vllm_arg or None, vllm_drafts=drafts,
    )  # fmt: skip
    check_exposure(settings)
    log_to_stderr(settings.log_format)
    with progress() as bar:
        pipeline = assemble(settings, progress=bar)
        _fetch_encoder(settings, bar)
    run(pipeline, settings)


def _fetch_encoder(settings: Settings, bar: Progress) -> None:
    """Have the gate's encoder here before the first target needs it; without it, say so."""
    from elision.middleware.models.pull import pull as fetch

    if not settings.encoder:
        return
    try:
        fetch(settings.encoder, cache=settings.cache, progress=bar)
    except ElisionError as exc:
        err.print(f"[yellow]warning:[/] no sentence encoder yet: {escape(str(exc))}")


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
    assistant: Assistants = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Most tokens per reply.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes a sampled reply repeatable.")] = None,
    elision: Elision = "{}",
) -> None:
    """Ask once, or talk."""
    from elision.middleware.assembly import assemble
    from elision.middleware.client import Client

    settings = settings_of(
        model=model, profile=profile, home=home, tenant=tenant, upstream=upstream,
        assistants=assistants_of(assistant),
    )  # fmt: skip
    sampling = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed}
    options = {**sampling, "elision": object_of(elision)}
    with progress() as bar:
        client = Client(assemble(settings, progress=bar))
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

    with progress() as bar:
        folder = fetch(name, cache=settings_of().cache, progress=bar, force=force)
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
    results = benches.run(name, settings=settings_of(), quick=quick, data=data, as_json=json)
    if write is not None:
        benches.write_table(write, results)
    if any(result.missed for result in results):
        err.print("some figures miss their goal", style="yellow")


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
