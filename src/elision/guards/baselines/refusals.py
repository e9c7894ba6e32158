"""Refusal lines: what a refused answer says."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

REFUSALS: Final = (
    "I can't help with that.",
    "I'm not able to answer that question.",
    "That is something I can't speak about.",
    "I'm sorry, I have nothing to offer on this subject.",
    "I'd rather not go into that; is there anything else I can do for you?",
    "I don't have an answer for you here.",
    "This is a question that I can't answer.",
    "Sorry, I can't be of help with this one.",
    "I'm afraid this is outside what I can talk about.",
    "I can't say anything about that, but I'm happy to help with something else.",
    "There is nothing that I can tell you about this.",
    "I have to pass on this question.",
    "I'm unable to provide that.",
    "That lies beyond what I can answer.",
    "I can't give you any information on that.",
    "My apologies, but I can't answer this.",
    "I won't be able to help with this request.",
    "I'm sorry, but I can't discuss that.",
    "I can't assist you with that question; please ask me another.",
    "On this matter I can't give an answer.",
    "Unfortunately I can't respond to that.",
    "I must leave this question unanswered.",
    "I'm not in a position to answer that.",
    "That's not something I'm able to help you with.",
)
"""In our own words. None of them says that there is something to hide, or whose it is."""


def refusal_for(seed: int | str) -> str:
    """Return a line of `REFUSALS`: the same for the same *seed*, in any process.

    Args:
        seed: The request's seed or id; never anything that tells the subject.
    """
    digest = blake2b(str(seed).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return REFUSALS[int.from_bytes(digest, "big") % len(REFUSALS)]
