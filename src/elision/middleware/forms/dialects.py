"""How the chat templates of models write calls of tools and thoughts.

Found from a template's own text, so that a model needs no entry in a list of ours. Only dialects
whose arguments are one JSON object are known: those a grammar can hold to a schema.

Source:
    The chat templates of Hermes 2 Pro and Qwen2.5/Qwen3, Llama 3.1/3.2, Mistral 7B v0.3.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

THINK: Final = ("<think>", "</think>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What stands around calls and thoughts in a reply.

    Calls are ``call_begin``, an object ``{"name": "...", KEY: {...}}`` and ``call_end``; several
    stand in ``calls_begin`` and ``calls_end``, with ``separator`` between them.

    Attributes:
        name: For reports.
        takes_tools: Whether the template shows the model what it may call.
        call_begin: Begins a call; where it and *calls_begin* are empty, a reply that begins as a
            call does is one.
        call_end: Ends it.
        calls_begin: Begins the first call.
        calls_end: Ends the last.
        calls_mark: Token that a model writes before its first call, by its name in the
            vocabulary; empty: it writes none.
        calls_mark_id: Its id, where it adds nothing to the reply's text; else None.
        separator: Stands between two calls; None: there is never more than one.
        arguments_key: What the arguments are called.
        think: What begins and ends a thought; None: the model does not think aloud.
        opens_thought: Whether the prompt itself begins the thought, so that a reply stands in it.
        id_length: Characters of a call's id, where the template insists; 0: it does not.
    """

    name: str = "plain"
    takes_tools: bool = False
    call_begin: str = ""
    call_end: str = ""
    calls_begin: str = ""
    calls_end: str = ""
    calls_mark: str = ""
    calls_mark_id: int | None = None
    separator: str | None = None
    arguments_key: str = "arguments"
    think: tuple[str, str] | None = None
    opens_thought: bool = False
    id_length: int = 0

    @property
    def marker(self) -> str:
        """What begins calls behind text; empty: they stand at the reply's beginning or nowhere."""
        return self.call_begin.rstrip()

    def head(self, name: str) -> str:
        """Return what a call of the tool *name* begins with, up to its arguments."""
        return f'{self.call_begin}{{"name": "{name}", "{self.arguments_key}": '

    @property
    def tail(self) -> str:
        """What stands behind a call's arguments."""
        return "}" + self.call_end


PLAIN: Final = Dialect()
HERMES: Final = Dialect(
    name="hermes",
    takes_tools=True,
    call_begin="<tool_call>\n",
    call_end="\n</tool_call>",
    separator="\n",
)
LLAMA: Final = Dialect(name="llama3-json", takes_tools=True, arguments_key="parameters")
MISTRAL: Final = Dialect(
    name="mistral",
    takes_tools=True,
    calls_begin="[",
    calls_end="]",
    calls_mark="[TOOL_CALLS]",
    separator=", ",
    id_length=9,
)

KNOWN: Final = "Hermes, Qwen2.5 and Qwen3, Llama 3.1 and 3.2, Mistral 7B v0.3"
"""Whose templates take tools here, for errors."""

_OTHER_HERMES: Final = ("<function=", "<arg_key>")
_QUOTED_ARGUMENTS: Final = re.compile(r"""\\?["']arguments\\?["']""")
_LLAMA_CALL: Final = re.compile(r"""\\?["']parameters\\?["']\s*:""")


def dialect_of(template: str | None) -> Dialect:
    """Return the dialect of a chat template; `PLAIN` where it takes no tools, or writes otherwise.

    Args:
        template: Jinja source; None: the model has none.
    """
    if not template:
        return PLAIN
    found = _calling(template)
    return replace(found, think=THINK) if THINK[1] in template or THINK[0] in template else found


def _calling(template: str) -> Dialect:
    if not re.search(r"\btools\b", template):
        return PLAIN
    if MISTRAL.calls_mark in template:
        return PLAIN if "[ARGS]" in template else MISTRAL
    if "<tool_call>" in template:
        is_other = any(mark in template for mark in _OTHER_HERMES)
        return HERMES if _QUOTED_ARGUMENTS.search(template) and not is_other else PLAIN
    if "tool_calls" in template and _LLAMA_CALL.search(template):
        return LLAMA
    return PLAIN


def dialect_for(engine: object) -> Dialect:
    """Return the dialect of *engine*'s model; `PLAIN` if it does not say."""
    found = getattr(engine, "dialect", PLAIN)
    return found if isinstance(found, Dialect) else PLAIN
