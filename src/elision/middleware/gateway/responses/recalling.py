"""What a response goes on from: earlier ones, and items that the caller names by their ids."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import orjson

from elision.errors import ContextLengthError, NotFoundError
from elision.guards.phrases.recent import Recent
from elision.middleware.gateway.responses.cleansing import CLEAN, Cleanser, Verdict, applied
from elision.middleware.gateway.responses.items import Item, Placed, Reference, new_id

if TYPE_CHECKING:
    from elision.middleware.enforcement import Enforcement
    from elision.middleware.gateway.responses.asked import Asked
    from elision.middleware.gateway.responses.kept import Entry, Kept

PREVIOUS = "previous_response_id"
_CHECKS: Final = 4096
_CHECKS_BYTES: Final = 4 << 20
_SHORT_BYTES: Final = 256 << 10
"""What is read at once. Our own bound."""
_N_READERS: Final = 2
_Mark: TypeAlias = tuple[int, str, str]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Who reads what is kept.

    Attributes:
        rules: What is enforced for him.
        engine: Whose rules these are.
        key: Name of his key.
    """

    rules: Enforcement
    engine: str
    key: str

    @property
    def mark(self) -> _Mark:
        """What may change a verdict; a tenant's entries are his alone."""
        return self.rules.epoch, self.key, self.engine


class Recalling:
    """Reads what is kept as it may be read now. Lives with the application.

    A reply that left under the caller's own rules is clean under them. Once the register has
    changed, or for another key, it is checked again, as long as that may tell something new.

    Args:
        kept: Where responses are.
        limit_bytes: Most bytes to go on from: what is kept may not say more than a body could.
    """

    def __init__(self, kept: Kept, *, limit_bytes: int) -> None:
        self.kept = kept
        self._limit_bytes = limit_bytes
        self._verdicts: Recent[tuple[str, int, _Mark], Verdict] = Recent(
            entries=_CHECKS, limit_bytes=_CHECKS_BYTES
        )
        self._withheld: Recent[tuple[str, int, str, str, bytes], tuple[str, ...]] = Recent(
            entries=256
        )
        # Its own: who has long conversations read again must not keep others from their work. What
        # nobody waits for any more is not begun.
        self._pool = ThreadPoolExecutor(_N_READERS, thread_name_prefix="elision-recalling")

    async def input_of(self, asked: Asked, reader: Reader) -> tuple[list[Placed], list[Placed]]:
        """Return what stands before the input, and the input with its references looked up.

        The caller's words of earlier turns are his own and stand as he wrote them.

        Raises:
            NotFoundError: If something is not kept, or not any more.
            ContextLengthError: If it is longer than a request may be.
        """
        tenant, left = reader.rules.tenant, self._limit_bytes
        chain = self.kept.chain(tenant, asked.previous) if asked.previous else ()
        left = _less(left, chain, at=PREVIOUS)
        before: list[Placed] = []
        for entry in chain:
            said = await self.outputs(entry, reader)
            before += [Placed(item, PREVIOUS) for item in (*entry.inputs(), *said)]
        given: list[Placed] = []
        seen = {item_id for entry in chain for item_id in entry.ids}
        for one in asked.items:
            if isinstance(one, Placed):
                given.append(one)
                continue
            owner = self.kept.owner(tenant, one.id)
            left = _less(left, () if owner is None else (owner,), at=one.at)
            given.append(_once(await self._named(one, owner, reader), seen))
        return before, given

    async def outputs(self, entry: Entry, reader: Reader) -> list[Item]:
        """Return what *entry* put out, as *reader* may be told it now."""
        return await self.told(entry, range(len(entry.given_ids), len(entry.ids)), reader)

    async def told(self, entry: Entry, places: Sequence[int], reader: Reader) -> list[Item]:
        """Return the items of *entry* at *places*, as *reader* may be told them now."""
        known = {
            n: verdict for n in places if (verdict := self._known(entry, n, reader)) is not None
        }
        if len(known) == len(places) and entry.n_bytes <= _SHORT_BYTES:
            return [applied(known[n], item) for n, item in _placed(entry, places)]
        items, found = await self._work(_read, reader.rules, entry, places, known)
        for n, verdict in found.items():
            self._verdicts.put((entry.id, n, reader.mark), verdict, n_bytes=len(verdict))
        return items

    def _known(self, entry: Entry, place: int, reader: Reader) -> Verdict | None:
        is_said = place >= len(entry.given_ids)
        is_own = is_said and (entry.epoch, entry.key, entry.engine) == reader.mark
        if is_own or not reader.rules.targets:
            return CLEAN
        return self._verdicts.get((entry.id, place, reader.mark))

    async def _work(self, work: Callable[..., _T], *args: Any) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)

    async def withheld(self, told: Mapping[str, Any], reader: Reader) -> tuple[str, ...]:
        """Return the names of the fields of *told* that may not be repeated to *reader*.

        What is longer than 256 KiB is not repeated, read or not: nobody waits for it to be read.
        """
        rules = reader.rules
        if not rules.targets:
            return ()
        said = sha256(orjson.dumps(told)).digest()
        mark = rules.tenant, *reader.mark, said
        found = self._withheld.get(mark)
        if found is None:
            found = await self._work(_forbidden, rules, told)
            self._withheld.put(mark, found)
        return found

    async def _named(self, reference: Reference, entry: Entry | None, reader: Reader) -> Placed:
        if entry is not None:
            place = entry.ids.index(reference.id)
            is_given = place < len(entry.given_ids)
            found = entry.items([place]) if is_given else await self.told(entry, [place], reader)
            return Placed(found[0], reference.at)
        raise NotFoundError(
            "there is no item of that id, or it is no longer kept; send the item itself",
            code="item_not_found",
            param=f"{reference.at}.id",
        )


def _less(left: int, entries: Iterable[Entry], *, at: str) -> int:
    """Return how many bytes may follow behind *entries*."""
    left -= sum(entry.n_bytes for entry in entries)
    if left < 0:
        raise ContextLengthError(
            "what is to be gone on from is longer than a request may be; begin anew, or raise "
            "body_limit_bytes",
            param=at,
        )
    return left


def _once(placed: Placed, seen: set[str]) -> Placed:
    """Return *placed*; under an id of its own if its conversation has one of that id already."""
    old = placed.item["id"]
    if old in seen:
        placed = Placed(placed.item | {"id": new_id(old.partition("_")[0])}, placed.at)
    seen.add(placed.item["id"])
    return placed


def _placed(entry: Entry, places: Sequence[int]) -> Iterator[tuple[int, Item]]:
    return zip(places, entry.items(places), strict=True)


def _read(
    rules: Enforcement, entry: Entry, places: Sequence[int], known: Mapping[int, Verdict]
) -> tuple[list[Item], dict[int, Verdict]]:
    """Return what may be told of the items at *places*, and the verdicts that are not *known*."""
    cleanser, items, found = Cleanser(rules), list[Item](), dict[int, Verdict]()
    for n, item in _placed(entry, places):
        if n not in known:
            found[n] = cleanser.verdict(item)
        items.append(applied(known[n] if n in known else found[n], item))
    return items, found


def _forbidden(rules: Enforcement, told: Mapping[str, Any]) -> tuple[str, ...]:
    cleanser = Cleanser(rules)
    return tuple(
        name
        for name, value in told.items()
        if len(orjson.dumps(value)) > _SHORT_BYTES or not cleanser.allows(value)
    )
