"""Grammars as text: what `Grammar` is made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from elision.middleware.interventions.grammar.limits import too_deep
from elision.middleware.interventions.grammar.schema import prepared

OPTIONS: Final[Mapping[str, Any]] = {
    "whitespace_flexible": False,
    "item_separator": ",",
    "key_separator": ":",
}
"""How JSON is written: without white space, which takes the fewest tokens and cannot run away."""

UNFORCED: Final = '%llguidance {"no_forcing": true}\n'
"""Lets a text that must come be written in any tokens, not only in those of the tokenizer."""


def of_schema(schema: Mapping[str, Any]) -> str:
    """Return the grammar of the JSON texts that *schema* describes.

    Members come in the order of ``properties``. Whitespace is that of `OPTIONS`, so none can run
    away; strings and arrays are as long as the schema lets them be. See `prepared`.

    Raises:
        RequestError: If it is nested too deeply.
    """
    return f"{UNFORCED}start: {json_of(schema)}\n"


def json_of(schema: Mapping[str, Any]) -> str:
    """Return what stands in a rule of a Lark grammar for a JSON text of *schema*.

    Raises:
        RequestError: If it is nested too deeply.
    """
    try:
        return f"%json {json.dumps({**prepared(schema), 'x-guidance': OPTIONS})}"
    except RecursionError:
        raise too_deep() from None  # its traceback would go through the schema


def unforced(source: str) -> str:
    """Return *source*, Lark or JSON of ``{"grammars": [...]}``, such that no tokens are forced."""
    if not source.lstrip().startswith("{"):
        return UNFORCED + source
    grammars = [_as_lark(grammar) for grammar in json.loads(source)["grammars"]]
    return json.dumps({"grammars": grammars})


def _as_lark(grammar: Mapping[str, Any]) -> dict[str, Any]:
    named = {key: grammar[key] for key in ("name",) if key in grammar}
    if "json_schema" in grammar:
        return {
            **named,
            "lark_grammar": f"{UNFORCED}start: %json {json.dumps(grammar['json_schema'])}",
        }
    return {**named, "lark_grammar": UNFORCED + grammar["lark_grammar"]}
