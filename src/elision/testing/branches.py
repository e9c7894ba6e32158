"""Other scores for a position, made up: what a law needs to ask a mixer anything."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import astuple, replace
from typing import TYPE_CHECKING

from elision.contract import BranchKey, Capability, Context, Request

if TYPE_CHECKING:
    from torch import Tensor


def made_up_branch(vocab_size: int, *, some_masked: bool = False) -> Callable[[BranchKey], Tensor]:
    """Return rows that depend on the key alone, shape ``(vocab,)``, float32.

    Args:
        vocab_size: Scores per row.
        some_masked: Whether a third of each row is ``-inf``.
    """
    import torch

    def branch(key: BranchKey) -> Tensor:
        value = f"{type(key).__name__}{astuple(key)}"  # a repr would not tell two prompts apart
        digest = hashlib.blake2b(value.encode(), digest_size=6).digest()
        draw = torch.Generator().manual_seed(int.from_bytes(digest, "big"))
        row = torch.randn(vocab_size, generator=draw) * 3
        if some_masked:
            row[torch.rand(vocab_size, generator=draw) < 1 / 3] = -torch.inf
        return row

    return branch


class MadeUpReader:
    """A `Reader` over a vocabulary of any size: every text becomes a few tokens that it fixes.

    Args:
        vocab_size: Tokens there are.
        request: What `prompt_after` changes; None takes a raw prompt.
        entropies: What `entropy_exceeded` answers from, in nats, rising.
    """

    def __init__(
        self,
        vocab_size: int,
        request: Request | None = None,
        entropies: Sequence[float] = (0.1, 0.5, 1.0, 2.0, 4.0),
    ) -> None:
        self._vocab_size = vocab_size
        self._request = request or Request(kind="text", prompt="the prompt, its context in it")
        self._entropies = tuple(entropies)

    def encode(self, text: str) -> tuple[int, ...]:
        """See `Reader.encode`."""
        return tuple(byte % self._vocab_size for byte in text.encode())

    def prompt_after(self, change: Callable[[Request], Request]) -> tuple[int, ...]:
        """See `Reader.prompt_after`."""
        changed = change(self._request)
        return self.encode(changed.prompt if isinstance(changed.prompt, str) else "")

    def entropy_exceeded(self, share: float) -> float:
        """See `Reader.entropy_exceeded`."""
        last = len(self._entropies) - 1
        return self._entropies[round((1 - share) * last)]


def with_branches(context: Context) -> Context:
    """Return *context* as an engine that can do every kind of branch would give it."""
    return replace(
        context,
        prompt_ids=context.prompt_ids or (1, 2, 3),
        capabilities=context.capabilities | Capability.BRANCH,
        assistants=frozenset({"amateur", "before", "after"}),
        reader=MadeUpReader(context.vocab_size),
    )
