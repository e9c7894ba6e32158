"""The proof that masks act in a server: a word that it says is forbidden, and it must be gone.

Servers ignore what they do not know. A vLLM without our plug-in, or one that drops it because it
speculates, answers a guarded request with status 200 and says everything. So what counts is what
comes back. The prompts are fixed; nobody's words are among them.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from elision.contract import Recipe
from elision.errors import ElisionError, NotFoundError, UpstreamTimeoutError
from elision.guards.carried import Carried
from elision.guards.targets import ForgetTarget, Phrase
from elision.middleware.engines.fleet.asking import BIAS, Asking, Server, UnfitError
from elision.middleware.engines.fleet.known import Proof
from elision.middleware.engines.fleet.ordering import BIASED, wire
from elision.middleware.engines.fleet.trying import Tried, is_word_in, word_in
from elision.middleware.engines.plugin.orders import KEY, Order
from elision.middleware.interventions.mti import MinimalIntervention

TESTED_VERSIONS: Final = ("0.32.",)
"""What the versions begin with that this was tested with."""
TOTAL_S: Final = 120.0
"""Longest time that a proof may take, in seconds."""

_SEVERAL: Final[Mapping[str, Any]] = {"n": 2, "temperature": 0.1}
"""vLLM draws several choices only where it draws."""
_UNKNOWN: Final = "0" * 32
"""A digest that no masks have."""
_OWN: Final = secrets.token_urlsafe(32)
"""Salts this process's proofs where there is no secret: a server is taught one mask, not many."""
_PER_POSITION: Final = re.compile(
    r'^vllm:spec_decode_num_accepted_tokens_per_pos[a-z_]*\{[^}]*position="(\d+)"', re.MULTILINE
)
_MTI: Final = MinimalIntervention(tau=-1.0)
_AHEAD: Final = (
    "it ends {what} behind their first token: it schedules ahead, before it knows the token; start "
    "it with --no-async-scheduling"
)


async def prove(server: Server, *, secret: str | None = None, untested: bool = False) -> Proof:
    """Return what *server* does with orders; some dozen requests of a few tokens.

    Args:
        server: Whom to ask.
        secret: What orders are sealed with.
        untested: Whether versions of vLLM will do that this was not tested with.

    Raises:
        UpstreamTimeoutError: If it takes longer than `TOTAL_S`, or one answer too long.
        ElisionError: If it cannot be asked: that says nothing of what it does.
    """
    prover = _Prover(server, secret, untested=untested)
    try:
        async with asyncio.timeout(TOTAL_S):
            await prover.run()
    except UnfitError as exc:
        why = str(exc)
    except ElisionError:
        raise
    except TimeoutError as exc:
        late = f"the proof of a vLLM server took longer than {TOTAL_S:.0f} s"
        raise UpstreamTimeoutError(late) from exc
    else:
        return replace(prover.found, at=time.monotonic(), acts=True)
    return replace(prover.found, at=time.monotonic(), acts=False, drafts=False, why=why)


class _Prover:
    """Proves one server. Lives for one proof."""

    def __init__(self, server: Server, secret: str | None, *, untested: bool) -> None:
        self.found = Proof(at=0.0)
        self._asking = Asking(server, secret)
        self._secret = secret
        self._untested = untested

    async def run(self) -> None:
        """Ask everything.

        Raises:
            UnfitError: If something is missing; what was found until then stands.
        """
        await self._diagnose()
        await self._choose_stop()
        before = [await self._asking.completion(Order())]
        if (chat := await self._chat()) is not None:
            before.append(chat)
        masks = self._masks(before)
        await self._learn(masks)
        order = Order(guard=masks.digest, stop=self.found.stop, before=None)
        await self._guarded(before[0], order)
        if chat is not None:
            said = await self._asking.chat(replace(order, before=""), **_SEVERAL)
            self._check_gone(chat, said, "chat completions")
        await self._sealed(order)
        await self._ended()
        await self._branched()

    async def _diagnose(self) -> None:
        """Find out what it is, and refuse what cannot do."""
        metrics = await self._asking.metrics()
        n_drafts = max((int(found) + 1 for found in _PER_POSITION.findall(metrics)), default=0)
        self._note(
            version=await self._asking.version(),
            speculates="vllm:spec_decode" in metrics,
            n_drafts=n_drafts,
        )
        is_installed = not await self._asking.takes({KEY: "?"})
        self._note(requires=is_installed and not await self._asking.takes({}))
        if not is_installed:
            raise UnfitError(
                "it takes any order unread: elision's plug-in is not there; install elision where "
                "vLLM is installed, of this version, and start it again"
            )
        if not (self._untested or self.found.version.startswith(TESTED_VERSIONS)):
            raise UnfitError(
                f"its version, {self.found.version[:20]!r}, was not tested; run one that begins "
                f"with {' or '.join(TESTED_VERSIONS)}, or set vllm_untested"
            )

    async def _choose_stop(self) -> None:
        """Choose the token that ends dead choices: a special one that is seen to, and is no end."""
        for token in await self._asking.specials():
            self._asking.stop = token
            if await self._tells(token):
                self._note(stop=token)
                return
        self._asking.stop = None

    async def _tells(self, token: int) -> bool:
        # A token that is an end token as well either is not told as the reason, or ends everything.
        dead = await self._unknowing(token)
        if not dead.is_empty or dead.stop_reason != token:
            return False
        return not (await self._asking.completion(Order(stop=token), max_tokens=2)).is_empty

    async def _unknowing(self, stop: int | None) -> Tried:
        """Return what it says under masks that it does not know, with what ended that."""
        order = Order(guard=_UNKNOWN, stop=stop, before=None)
        return await self._asking.completion(order, 2, include_stop_str_in_output=True)

    async def _chat(self) -> Tried | None:
        """Return what a chat says; None where there are no chats."""
        try:
            return await self._asking.chat(Order())
        except (UnfitError, NotFoundError):
            return None

    def _masks(self, before: list[Tried]) -> Carried:
        words = {word for tried in before if (word := word_in(tried))}
        if not word_in(before[0]):
            raise UnfitError(_why_silent(before[0]))
        phrases = tuple(Phrase(text=word) for word in sorted(words))
        masks = Carried.of([ForgetTarget(title="proof", phrases=phrases)])
        assert masks is not None
        return masks.salted(self._secret or _OWN)

    async def _learn(self, masks: Carried) -> None:
        order = Order(guard=masks.digest, learn=masks.body, stop=self.found.stop)
        await self._asking.completion(order, max_tokens=1)

    async def _guarded(self, before: Tried, order: Order) -> None:
        said = await self._asking.completion(order)
        self._check_gone(before, said, "completions")
        self._note(is_raw_logprobs=said.tells(before))
        said = await self._asking.completion(order, **_SEVERAL, **self._bias())
        self._check_gone(before, said, "several choices at a time")
        if BIAS in self._asking.left_out:
            self._note(speculates=True)  # the one reason for which vLLM refuses biases

    def _check_gone(self, before: Tried, said: Tried, where: str) -> None:
        word = word_in(before)
        if word and is_word_in(word, said):
            raise UnfitError(self._why_said(where))
        if said.is_empty:
            raise UnfitError(f"it ends guarded {where} at once: it did not learn its masks")
        if said.is_cut_short(self.found.stop):
            raise UnfitError(_AHEAD.format(what=f"guarded {where}"))

    def _why_said(self, where: str) -> str:
        if self.found.speculates:
            return (
                "it speculates, and vLLM then leaves our plug-in out without a word; turn "
                "speculative decoding off, or speculate with elision's own proposer"
            )
        return f"masks do not act in {where}, though the plug-in is there; look into vLLM's log"

    async def _sealed(self, order: Order) -> None:
        """See that an order under another seal is refused, where seals count."""
        if self._secret is None:
            return
        if await self._asking.takes(wire(order, self._secret + "?")):
            raise UnfitError(
                "it takes orders under any seal; start it with ELISION_VLLM_SECRET set to "
                "vllm_secret"
            )

    async def _ended(self) -> None:
        """See that masks it does not know end a choice: a stop token was chosen by just that."""
        if self.found.stop is None and not (await self._unknowing(None)).is_empty:
            raise UnfitError("it answers under masks that it does not know")

    async def _branched(self) -> None:
        """See whether MTI works: without it the row has nothing to go on with."""
        if not self.found.n_drafts:
            return
        recipes: tuple[Recipe, ...] = (_MTI,)
        order = Order(recipes=recipes, stop=self.found.stop)
        said = await self._asking.completion(order, max_tokens=4)
        self._note(drafts=not said.is_empty and said.stop_reason != self.found.stop)

    def _bias(self) -> dict[str, Any]:
        """Return what would end every choice if the plug-in did not forbid it."""
        if self.found.stop is None or self.found.speculates:
            return {}
        return {BIAS: {str(self.found.stop): BIASED}}

    def _note(self, **seen: Any) -> None:
        self.found = replace(self.found, **seen)


def _why_silent(tried: Tried) -> str:
    if tried.is_empty:
        return (
            "it ends replies at once that have an order: its model runner was not tested; set "
            "VLLM_USE_V2_MODEL_RUNNER=0 for it, or ELISION_VLLM_UNTESTED=1"
        )
    if tried.is_cut_short(None):
        return _AHEAD.format(what="replies that have an order")
    return "it says no word that could be forbidden, so nothing can be shown there"
