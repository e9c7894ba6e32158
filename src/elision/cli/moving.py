"""``elision memory export|import|reembed``: records leave, come back, and get other vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from elision.cli.console import (
    AsJson,
    Home,
    Tenant,
    memory_of,
    namespace_of,
    out,
    read,
    register_of,
    settings_of,
    shown,
    write,
)
from elision.cli.memory import Kinds, Names
from elision.errors import ConfigError

OnConflict = Literal["skip", "overwrite", "new_ids"]


def add_to(app: typer.Typer) -> None:
    """Hang the commands into *app*."""
    app.command("export")(export)
    app.command("import")(import_)
    app.command("reembed")(reembed)


def export(
    file: Annotated[Path, typer.Argument(help="Where to.")],
    namespace: Names = None,
    kind: Kinds = None,
    vectors: Annotated[
        bool, typer.Option("--vectors", help="Embeddings too; texts can be guessed from them.")
    ] = False,
    home: Home = None,
    tenant: Tenant = None,
) -> None:
    """Write records in clear, one a line, signed at the end; no erasure reaches that file."""
    from elision.memory.transfer import export_to

    if file.is_dir():
        raise ConfigError(f"{str(file)!r} is a folder; name a file")
    settings = settings_of(home=home, tenant=tenant)
    scope = namespace_of(settings, namespace)
    with memory_of(settings) as memory:
        manifest = export_to(memory.store, scope, file, kinds=kind or (), vectors=vectors)
    out.print(f"{manifest.n_records} records, signed by {manifest.key_id}", highlight=False)


def import_(
    file: Annotated[Path, typer.Argument(help="What an export wrote.")],
    on_conflict: Annotated[
        OnConflict, typer.Option(help="Where an id or a key is taken.")
    ] = "skip",
    revive: Annotated[
        bool, typer.Option("--revive", help="What was erased here may come back.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell.")] = False,
    trust: Annotated[
        list[Path] | None,
        typer.Option(help="Public key (PEM) of another installation that you vouch for."),
    ] = None,
    vectors: Annotated[
        bool, typer.Option("--vectors", help="Take its embeddings, if they are of our encoder.")
    ] = False,
    without_subjects: Annotated[
        bool,
        typer.Option("--without-subjects", help="Although persons can no longer be told."),
    ] = False,
    as_json: AsJson = False,
    home: Home = None,
    tenant: Tenant = None,
) -> None:
    """Take in what an export wrote; what was erased here stays away."""
    from elision.memory.transfer import import_from
    from elision.middleware.gateway.memory.moving import import_object

    settings = settings_of(home=home, tenant=tenant)
    with memory_of(settings, encodes=True) as memory:
        report = import_from(
            memory.store, file, on_conflict=on_conflict, revive=revive, dry_run=dry_run,
            trust=[read(key).decode() for key in trust or ()], tenant=settings.tenant,
            vectors=vectors, without_subjects=without_subjects,
        )  # fmt: skip
    body = import_object(report)
    if as_json:
        write(shown(body), None)
        return
    table = Table("what", "how much")
    for name, value in body.items():
        table.add_row(name, str(value))
    out.print(table)


def reembed(home: Home = None) -> None:
    """Encode all texts with the encoder of the settings, in place of the one before.

    It can be cut short and run again; until it is done the old vectors serve.
    """
    from elision.middleware.assembly import encoder_of
    from elision.middleware.remembering import open_store

    settings = settings_of(home=home)
    with register_of(settings) as register:
        encoder = encoder_of(settings)
        with open_store(settings, register, encoder, reembedding=True) as store:
            n = store.reembed()
    out.print(f"{n} texts were encoded with {store.identity}", highlight=False)
