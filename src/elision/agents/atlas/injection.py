"""How words that are not orders enter a prompt: behind all instructions, and marked as data."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final
from unicodedata import category

_RUN: Final = re.compile(r"<(?:\s*<)+|>(?:\s*>)+|[＜﹤⋘＞﹥⋙]")
_OPENED: Final = re.compile(r"<(?=[|/!])")
_SINGLE: Final = {"＜": "<", "﹤": "<", "⋘": "<", "＞": ">", "﹥": ">", "⋙": ">"}


def with_advice(system: str, block: str) -> str:
    """Return the system message with the advice at its end; without advice the same, to the byte.

    At the end, so that the instructions before it stay the same from call to call and their keys
    and values can be reused.
    """
    return f"{system}\n\n{block}" if block else system


def as_data(name: str, text: str) -> str:
    """Return *text* between two fences that say what it is.

    Nothing in it can be a fence: runs of angle brackets shrink to one, control and invisible
    characters go (line breaks and tabs stay), and what would open a control token of a chat
    template (``<|im_end|>``) is parted. The same text has the same fence.
    """
    body = plain(text)
    mark = sha256(f"{name}\n{body}".encode()).hexdigest()[:8]
    return f"<<<{name} {mark}>>>\n{body}\n<<<end of {name} {mark}>>>"


def plain(text: str) -> str:
    """Return *text* without what could pass for a fence or a control token; see `as_data`."""
    visible = "".join(c for c in text if c in "\n\t" or category(c) not in {"Cc", "Cf", "Cs"})
    single = _RUN.sub(lambda run: _SINGLE.get(run[0], run[0][0]), visible)
    return _OPENED.sub("< ", _RUN.sub(lambda run: run[0][0], single))
