"""A text that no model cut, made as short as was asked for."""

from __future__ import annotations

from elision.agents.speaking import CHARS_PER_TOKEN, estimate


def bounded(text: str, max_tokens: int | None) -> tuple[str, bool]:
    """Return *text* within *max_tokens*, and whether something was left out.

    Tokens are estimated from characters: the roles' speakers have no tokenizer. What is cut ends
    with a whole word, unless its first word is longer than all that may be said.
    """
    if max_tokens is None or estimate(text) <= max_tokens:
        return text, False
    room = max_tokens * CHARS_PER_TOKEN
    kept = text[:room]
    if not text[room].isspace():
        words = kept.rsplit(maxsplit=1)
        kept = words[0] if len(words) > 1 else kept
    return kept.rstrip(), True
