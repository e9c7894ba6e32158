"""Masks that a replica has learnt: taught once, waited for by everybody who needs them."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

from elision.contract import Masks
from elision.errors import GuardError, RequestError
from elision.middleware.engines.fleet.sharing import Shared

KEPT: Final = 48
"""Digests that a replica is believed to know; it keeps 64, others may teach it too."""

AGAIN_S: Final = 30.0
"""Seconds in which masks are taught once more at most, where replies under them end at once: then
it is not that they are not known."""


class Pushing:
    """What one replica has learnt. Lives as long as the replica.

    Args:
        push: Has the replica learn masks.

    Attributes:
        n_pushes: Masks that it was taught, again or anew.
    """

    def __init__(self, push: Callable[[Masks], Awaitable[None]]) -> None:
        self.n_pushes = 0
        self._push = push
        self._learnt: OrderedDict[str, float] = OrderedDict()
        self._again: OrderedDict[str, float] = OrderedDict()
        self._shared = Shared()
        self._age = 0

    async def ensure(self, masks: Masks) -> None:
        """Return once the replica knows *masks*.

        Raises:
            GuardError: If it refuses them.
            UpstreamError: If it cannot be asked.
        """
        if masks.digest in self._learnt:
            self._learnt.move_to_end(masks.digest)
        else:
            await self._shared.do(masks.digest, lambda: self._teach(masks))

    def forget(self) -> None:
        """Believe no longer that it knows anything."""
        self._age += 1
        self._learnt.clear()
        self._again.clear()

    def is_worth_again(self, masks: Masks, *, asked_at: float) -> bool:
        """Return whether to ask again behind `ensure` what ended at once, as under unknown masks.

        Masks that were forgotten there are taught again, but not again and again: where nothing
        acceptable is left at a reply's first token, that would help nobody.

        Args:
            masks: Those that should hold.
            asked_at: When it was asked, on the monotonic clock.
        """
        taught_at = self._learnt.get(masks.digest)
        if taught_at is None or taught_at > asked_at:
            return True  # somebody else found out before
        now = time.monotonic()
        if now - self._again.get(masks.digest, -math.inf) < AGAIN_S:
            return False
        _keep(self._again, masks.digest, now)
        del self._learnt[masks.digest]
        return True

    async def aclose(self) -> None:
        """Call off what is under way."""
        await self._shared.aclose()

    async def _teach(self, masks: Masks) -> None:
        age = self._age
        try:
            await self._push(masks)
        except RequestError as exc:
            kind = type(exc).__name__
        else:
            self.n_pushes += 1
            if age == self._age:
                _keep(self._learnt, masks.digest, time.monotonic())
            return
        raise GuardError(
            f"a vLLM server refused the masks that must act there ({kind}); see that it has this "
            "version of elision and our vllm_secret"
        )


def _keep(kept: OrderedDict[str, float], digest: str, at: float) -> None:
    kept[digest] = at
    kept.move_to_end(digest)
    while len(kept) > KEPT:
        kept.popitem(last=False)
