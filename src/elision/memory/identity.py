"""What a store is to be read with: which keys, which encoder, sealed or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select

from elision.errors import ConfigError, StoreError
from elision.memory.journal import get_meta, put_meta
from elision.memory.schema import records

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from elision.crypto.vault import Vault
    from elision.encoders.protocol import Encoder
    from elision.memory.sealing import Keyring

REEMBED: Final = "elision memory reembed"


def name_of(encoder: Encoder) -> str:
    """Return what tells the vectors of one encoder from those of another."""
    return f"{encoder.name}:{encoder.dim}"


def settle_keys(connection: Connection, vault: Vault) -> None:
    """Note which keys the store has, or compare.

    Raises:
        ConfigError: If it has others: every digest in it would be wrong.
    """
    mine = vault.digest("memory keys", "", b"elision")
    if _settled(connection, "keys", mine) != mine:
        raise ConfigError(
            "the memory's keys are not those that it was made with; restore them from a backup"
        )


def settle_sealing(connection: Connection, wanted: bool | None, *, default: bool) -> bool:
    """Return whether the store is sealed; a new one is as *wanted*, or as the *default*.

    Raises:
        ConfigError: If it is *wanted* otherwise than it is.
    """
    first = default if wanted is None else wanted
    sealed = _settled(connection, "sealed", str(int(first))) == "1"
    if wanted is not None and wanted != sealed:
        raise ConfigError(
            f"the memory is {'' if sealed else 'not '}sealed, and stays so; export it and import "
            "it into a new one to change that"
        )
    return sealed


def settle_encoder(connection: Connection, encoder: Encoder | None) -> None:
    """Note whose vectors the store has, or compare; without an encoder, do nothing.

    Raises:
        ConfigError: If they are another's, if records were kept without any, or if a change of
            encoders was cut short.
    """
    if encoder is None:
        return
    mine, known = name_of(encoder), get_meta(connection, "encoder")
    if known is None and not connection.scalar(select(func.count()).select_from(records)):
        put_meta(connection, "encoder", mine)
    elif known != mine:
        had = "no encoder" if known is None else f"the encoder {known!r}"
        raise ConfigError(
            f"the memory was written with {had}, not {mine!r}; open it with that one, or run: "
            f"{REEMBED}"
        )


def _settled(connection: Connection, name: str, value: str) -> str:
    known = get_meta(connection, name)
    if known is None:
        put_meta(connection, name, value)
    return value if known is None else known


def encoder_of(connection: Connection) -> str | None:
    """Return whose vectors the store has, as ``name:dim``."""
    return get_meta(connection, "encoder")


def settle_retired(connection: Connection, keyring: Keyring | None) -> bool:
    """Destroy the keys that a write has retired and that are there still; return whether all went.

    What cannot be destroyed stays noted, for the next time.
    """
    if keyring is not None and (waiting := get_meta(connection, "retired")):
        try:
            keyring.destroy(waiting.split())
        except StoreError:
            return False
        put_meta(connection, "retired", "")
    return True
