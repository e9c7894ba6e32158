"""How a choice ended in vLLM: by its model, or because nothing acceptable was left."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from elision.contract import Delta

_OURS: Final = "content_filter"
_REASON = "stop_reason"
_IDS = "token_ids"


def is_dead(delta: Delta, stop: int | None) -> bool:
    """Return whether *delta* ends its choice where nothing acceptable was left.

    So it is if it ends with the token *stop*, which nothing else chooses, or says `cut`.
    """
    if delta.finish == _OURS:
        return True
    reason = delta.extra.get(_REASON)
    return delta.finish is not None and stop is not None and type(reason) is int and reason == stop


def is_mute(delta: Delta) -> bool:
    """Return whether *delta* ends its choice by itself, without a word."""
    return delta.finish == "stop" and not (delta.text or delta.message)


def cut(choice: int) -> Delta:
    """Return the end of a choice that a grammar and masks left nothing to say; vLLM has no name."""
    return Delta(choice=choice, finish=_OURS)


def told(delta: Delta) -> Delta:
    """Return a choice's end at a place where nothing acceptable was left, as we say it.

    Nothing is told of the token that says so.
    """
    extra = {key: value for key, value in delta.extra.items() if key != _REASON}
    if isinstance(extra.get(_IDS), list):
        extra[_IDS] = extra[_IDS][:-1]
    return replace(delta, finish=_OURS, extra=extra, logprobs=delta.logprobs[:-1])
