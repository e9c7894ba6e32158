"""A form as a grammar: what a model may write so that its reply has it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from elision.middleware.interventions.grammar.schema import prepared
from elision.middleware.interventions.grammar.source import OPTIONS, json_of

if TYPE_CHECKING:
    from elision.middleware.forms.dialects import Dialect
    from elision.middleware.forms.form import Form, Tool


_SPACED: Final = {**OPTIONS, "item_separator": ", ", "key_separator": ": "}
"""How arguments are written: as the templates' ``tojson`` shows earlier ones to the model."""


def source_of(form: Form, dialect: Dialect, *, is_thinking: bool = False) -> str | None:
    """Return the Lark grammar of replies that have *form*; None if any text has.

    A thought may come first. Where a call must come, it does from the first token behind it; where
    it may, text is free until the dialect begins a call, and from there the grammar holds. Behind a
    call nothing but calls. A reply that may not call does not write what begins one.

    Args:
        form: What was asked for.
        dialect: How the model writes.
        is_thinking: Whether the reply begins within a thought.
    """
    if form.is_free and not (form.tools and dialect.marker):
        return None
    reply = [*_reply(form, dialect)]
    opening = _thought(dialect, is_thinking=is_thinking, is_free=_is_text(form))
    calls = _calls(form, dialect) if form.callable else ()
    return "\n".join([*opening, *reply, *calls, "ANY: /(.|\\n)*/", "SPACE: /[ \\n]{1,4}/", ""])


def _is_text(form: Form) -> bool:
    """Return whether the reply may be free text."""
    return form.calls != "must" and form.schema is None


def _thought(dialect: Dialect, *, is_thinking: bool, is_free: bool) -> Iterator[str]:
    if dialect.think is None:
        yield "start: reply"
        return
    begin, end = map(json.dumps, dialect.think)
    closed = "thought" if is_free else "thought SPACE?"  # free text brings its own white space
    yield f"start: {closed} reply" if is_thinking else f"start: ({begin} {closed})? reply"
    yield f"thought[lazy]: ANY {end}"


def _reply(form: Form, dialect: Dialect) -> Iterator[str]:
    """Yield the rules of what stands behind a thought."""
    ways: list[str] = []
    if form.schema is not None:
        ways.append("json")
        yield f"json: {json_of(form.schema)}"
    if form.callable and not (_is_text(form) and dialect.marker):
        ways.append(f"{_text(dialect.call_begin if dialect.marker else '')} calls".lstrip())
        if dialect.calls_mark_id is not None:
            space = "" if _is_text(form) else "SPACE? "  # beside free text, heads bring their own
            ways.append(f"<[{dialect.calls_mark_id}]> {space}calls")
    if _is_text(form):
        ways.append("TEXT")
        yield f"TEXT: {_free(form, dialect)}"
        if form.callable and dialect.marker:
            ways.append("begun calls")
            yield f"begun: marked {_text(dialect.call_begin.removeprefix(dialect.marker))}"
            yield f"marked[lazy]: {_marked(dialect)}"
    yield f"reply: {' | '.join(ways)}"


def _free(form: Form, dialect: Dialect) -> str:
    """Return the expression of free text."""
    text = _unthought(dialect)
    if form.calls == "none":
        return f"{text} & ~/(.|\\n)*{_pattern(dialect.marker)}(.|\\n)*/"
    if not dialect.marker:
        heads = "|".join(
            _pattern(dialect.calls_begin + dialect.head(t.name)) for t in form.callable
        )
        return f"{text} & ~/[ \\n]*({heads})(.|\\n)*/"
    return text


def _marked(dialect: Dialect) -> str:
    """Return the expression of text up to where it first begins a call."""
    return f"({_unthought(dialect)}) {_text(dialect.marker)}"


def _unthought(dialect: Dialect) -> str:
    """Return the expression of text that begins no thought."""
    if dialect.think is None:
        return "ANY"
    return f"ANY & ~/{_pattern(dialect.think[0])}(.|\\n)*/"


def _calls(form: Form, dialect: Dialect) -> Iterator[str]:
    """Yield the rules of calls, behind what begins the first of them."""
    numbers = range(len(form.callable))
    more = ""
    if form.parallel and dialect.separator is not None:
        more = f" ({_text(dialect.separator + dialect.call_begin)} call)*"
        yield "call: " + " | ".join(f"call_{n}" for n in numbers)
    yield f"calls: first{more} {_text(dialect.calls_end)}".rstrip()
    yield "first: " + " | ".join(f"first_{n}" for n in numbers)
    for n, tool in enumerate(form.callable):
        head = dialect.head(tool.name).removeprefix(dialect.call_begin)
        yield f"first_{n}: {_first(head, form, dialect)} rest_{n}"
        if more:
            yield f"call_{n}: {_text(head)} rest_{n}"
        yield f"rest_{n}: {_arguments(tool)} {_text(dialect.tail)}"


def _first(head: str, form: Form, dialect: Dialect) -> str:
    """Return how the first call begins.

    The lexer takes the longest lexeme that may stand somewhere and does not go back. Beside free
    text a bare call's head must therefore be one lexeme, the white space before it included, and
    beside JSON the same ones as JSON's.
    """
    if not dialect.marker and _is_text(form):
        return f"/[ \\n]{{0,4}}{_pattern(dialect.calls_begin + head)}/"
    if dialect.marker or form.schema is None:
        return _text(dialect.calls_begin + head)
    parts = re.findall(r'"[^"]*"|: |, |.', dialect.calls_begin + head)
    return " ".join(map(json.dumps, parts))


def _arguments(tool: Tool) -> str:
    schema = {**prepared(parameters_of(tool)), "x-guidance": _SPACED}
    return f"%json {json.dumps(schema)}"


def parameters_of(tool: Tool) -> Mapping[str, Any]:
    """Return the schema of *tool*'s arguments, as an object's, which they always are."""
    return {**tool.parameters, "type": "object"}


def _text(literal: str) -> str:
    """Return *literal* as it stands in a rule; nothing if it is empty."""
    return json.dumps(literal) if literal else ""


def _pattern(literal: str) -> str:
    r"""Return *literal* as a regular expression between slashes."""
    return re.sub(r"([^\w\s<>])", r"\\\1", literal).replace("\n", "\\n").replace(" ", "[ ]")
