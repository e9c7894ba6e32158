"""What every command shares: where it writes, its common options, settings and register."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.console import Console

from elision.errors import ConfigError
from elision.settings import Settings

if TYPE_CHECKING:
    from elision.guards.phrases.advice import Advice
    from elision.guards.register.register import Register
    from elision.memory.memory import Memory
    from elision.memory.records import Scope

out = Console()
err = Console(stderr=True)

Model = Annotated[str | None, typer.Option("--model", "-m", help="Alias, hub id or folder.")]
Profile = Annotated[str | None, typer.Option("--profile", "-p", help="See `elision profiles`.")]
Home = Annotated[Path | None, typer.Option("--home", help="Where state lives.")]
Tenant = Annotated[str | None, typer.Option("--tenant", help="Whose register.")]
Upstream = Annotated[
    str | None, typer.Option("--upstream", help="Base URL of a server to stand before.")
]
Assistants = Annotated[
    list[str] | None,
    typer.Option(
        "--assistant", metavar="NAME=MODEL", help="A model to be read beside it; may be repeated."
    ),
]
Elision = Annotated[
    str, typer.Option("--elision", help="More of the request's `elision` object, as JSON.")
]
TargetId = Annotated[str, typer.Argument(help="See `elision forget list`.")]
Actor = Annotated[
    str | None, typer.Option("--as", help="Who does it, for the audit log; else the system's user.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, for programs.")]
To = Annotated[Path | None, typer.Option("--out", "-o", help="Write it there instead.")]


def settings_of(**given: Any) -> Settings:
    """Return the settings, what the command line gave on top.

    Raises:
        ConfigError: If one cannot be used; which, and why.
    """
    from pydantic import ValidationError

    try:
        return Settings(**{key: value for key, value in given.items() if value is not None})
    except ValidationError as exc:
        where = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors())
        raise ConfigError(f"a setting cannot be used: {where}; see docs/settings.md") from exc


def assistants_of(given: list[str] | None) -> dict[str, str] | None:
    """Return the assistants that ``--assistant NAME=MODEL`` gave, by name; None if it gave none.

    Raises:
        ConfigError: If one is not of that form, or two have one name.
    """
    if not given:
        return None
    found: dict[str, str] = {}
    for each in given:
        name, _, model = each.partition("=")
        if not (name and model) or name in found:
            raise ConfigError(
                f"--assistant {each!r} is not NAME=MODEL, or its name is given twice; "
                "write one such as small=smollm2-135m"
            )
        found[name] = model
    return found


def object_of(given: str) -> dict[str, Any]:
    """Return the JSON object that ``--elision`` gave.

    Raises:
        ConfigError: If it is none.
    """
    value = _parsed(given.encode())
    if not isinstance(value, dict):
        raise ConfigError("--elision is no JSON object; write one, such as '{\"report\": true}'")
    return value


@contextmanager
def register_of(settings: Settings) -> Iterator[Register]:
    """Open the register that *settings* name, for one command."""
    from elision.middleware.assembly import open_register

    register = open_register(settings)
    try:
        yield register
    finally:
        register.close()


@contextmanager
def memory_of(settings: Settings, *, encodes: bool = False) -> Iterator[Memory]:
    """Open the memory that *settings* name, screened by the register, for one command.

    Without *encodes* no encoder is loaded, and nothing can be compared or written.
    """
    from elision.middleware.assembly import encoder_of
    from elision.middleware.remembering import open_memory

    encoder = encoder_of(settings)
    try:
        with (
            register_of(settings) as register,
            open_memory(settings, register, encoder, encodes=encodes) as memory,
        ):
            yield memory
    finally:
        if encoder is not None:
            encoder.close()


def namespace_of(settings: Settings, labels: list[str] | None) -> Scope:
    """Return the settings' tenant with the namespace of *labels*."""
    from elision.memory.records import Scope

    return Scope(settings.tenant, tuple(labels or ()))


def actor_of(given: str | None) -> str:
    """Return who acts: the one that was named, or the system's user; their number, if unnamed."""
    if given is not None:
        return given
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container often runs under a number that no table has
        return f"uid-{os.getuid()}"


def progress() -> Any:
    """Return a progress bar for downloads and loading."""
    from elision.middleware.models.progress import RichProgress

    return RichProgress()


def warn(warnings: Iterable[Advice]) -> None:
    """Show warnings, none of which names a phrase."""
    for warning in warnings:
        err.print(f"[yellow]warning:[/] {warning['message']}", highlight=False)


def write(data: bytes, to: Path | None) -> None:
    """Write *data* to a file, or to standard output as it is."""
    if to is None:
        sys.stdout.write(data.decode())
        sys.stdout.flush()
        return
    try:
        to.write_bytes(data)
    except OSError as exc:
        raise ConfigError(f"{str(to)!r} cannot be written: {exc.strerror}") from exc


def read(path: Path) -> bytes:
    """Return what a file holds; ``-`` is standard input.

    Raises:
        ConfigError: If it cannot be read.
    """
    if str(path) == "-":
        return sys.stdin.buffer.read()
    try:
        return path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"{str(path)!r} cannot be read: {exc.strerror}") from exc


def read_values(path: Path) -> list[Any]:
    """Return the JSON values of a file: one a line, or one list of them.

    Raises:
        ConfigError: If a line is no JSON. The message says which, never what it holds.
    """
    data = read(path)
    whole = _parsed(data)
    if isinstance(whole, list):
        return whole
    lines = [(n, line) for n, line in enumerate(data.splitlines(), 1) if line.strip()]
    values = [(n, _parsed(line)) for n, line in lines]
    wrong = next((n for n, value in values if value is _BAD), None)
    if wrong is not None:
        raise ConfigError(f"line {wrong} of {str(path)!r} is no JSON; write one value a line")
    return [value for _, value in values]


def shown(body: Mapping[str, Any]) -> bytes:
    """Return *body* as JSON that people read too."""
    return orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


_BAD = object()


def _parsed(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return _BAD
