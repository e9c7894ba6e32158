"""The front door of memory: a store, what agents learned in it, and what erases from it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from elision.encoders.hashing import HashingEncoder
from elision.errors import StoreError
from elision.memory.erasure.eraser import Eraser
from elision.memory.learning.episodes import Episodes
from elision.memory.learning.lifecycle import Policy
from elision.memory.learning.playbook import Playbook
from elision.memory.store import Store

if TYPE_CHECKING:
    from types import TracebackType

    from elision.contract import Erasable
    from elision.memory.erasure.receipts import Receipt
    from elision.memory.erasure.selector import Selector

STALE_S: Final = 3_600.0
"""Seconds after which an episode that still runs is taken for one whose process died."""


class Memory:
    """What is remembered, for whom, and how it is forgotten.

    Opening it finishes what a killed process left half done: erasures go on, episodes that still
    run after an hour are aborted. What has expired is deleted.

    Args:
        store: The records; closed with the memory.
        policy: When what was learned is shown, kept and dropped.
        erasables: Caches elsewhere that hold what is erased here.
        folders: Where copies are looked for too.

    Attributes:
        store: Records by namespace, key and similarity.
        playbook: What agents learned.
        episodes: What they did, and how well.
        eraser: What takes all of that away.
    """

    def __init__(
        self,
        store: Store,
        *,
        policy: Policy | None = None,
        erasables: Iterable[Erasable] = (),
        folders: Iterable[Path] = (),
    ) -> None:
        self.store = store
        self.playbook = Playbook(store, policy=policy or Policy())
        self.episodes = Episodes(store, self.playbook)
        self.eraser = Eraser(store, erasables=erasables, folders=folders)
        self.eraser.resume()
        with suppress(StoreError):  # a reader may keep pages; the records are gone all the same
            self.store.sweep()
        self.episodes.recover(STALE_S)

    @classmethod
    def open(
        cls,
        home: Path,
        *,
        policy: Policy | None = None,
        erasables: Iterable[Erasable] = (),
        **options: Any,
    ) -> Self:
        """Open ``memory.db`` in *home*; takes `Store`'s options too. Give it a folder of its own.

        Without an ``encoder`` texts are compared by their spelling; see `HashingEncoder`.

        Raises:
            ConfigError: If it cannot be opened, or was written with another encoder.
        """
        options.setdefault("encoder", HashingEncoder())
        store = Store.open(home, **options)
        return cls(store, policy=policy, erasables=erasables, folders=(home,))

    def erase(self, selector: Selector, *, reason: str, actor: str) -> Receipt:
        """Erase what *selector* names, whatever was made from it, and every copy; see `Eraser`."""
        return self.eraser.erase(selector, reason=reason, actor=actor)

    def close(self) -> None:
        """Write what is to be written and let go of the database. Idempotent."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
