"""Whether a grammar can be used, told before anything is written."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

from elision.errors import RequestError
from elision.middleware.interventions.grammar.compiled import Compiler

if TYPE_CHECKING:
    from llguidance import LLMatcher

    from elision.contract import Lexicon

N_PROBED: Final = 24
"""Tokens that are written on trial: some limits show only behind the first brace."""

_UNKNOWN: Final = re.compile(r"Unimplemented keys: (\[[^\]]*\])")
_KEYWORDS: Final = frozenset(
    {"$dynamicRef", "$recursiveRef", "contains", "dependencies", "dependentRequired",
     "dependentSchemas", "else", "if", "maxContains", "minContains", "not", "propertyNames",
     "then", "unevaluatedItems", "unevaluatedProperties", "uniqueItems"}
)  # fmt: skip
"""Keywords that may be named; a schema's other words may be the caller's text."""
_UNSUPPORTED: Final = "unsupported_schema"
_SIGNS: Final = tuple(
    (re.compile(sign), code, what)
    for sign, code, what in (
        (
            "Unsatisfiable|NoExtension",
            "unsatisfiable_schema",
            "cannot be satisfied by any text; look for bounds that exclude each other and for "
            "members that must hold themselves",
        ),
        (
            "fuel|too (large|big|many|complex|deep)|recursion limit|limit (reached|exceeded)"
            "|nable to determine|Current row has|TooComplex|size limit|is maximum",
            "schema_too_complex",
            "is too complex to write by; shorten its lists, patterns, bounds and unions",
        ),
        (
            "look-?around|WordUnicode|regex parse|backreference",
            _UNSUPPORTED,
            "has a 'pattern' beyond regular expressions, such as look-around, a back reference or "
            "a word boundary; leave it out",
        ),
        (
            "oneOf",
            _UNSUPPORTED,
            "has a 'oneOf' whose alternatives cannot be told apart; use 'anyOf'",
        ),
        (
            "min/maxProperties",
            _UNSUPPORTED,
            "counts properties of which some are optional; require them, or leave "
            "'minProperties' and 'maxProperties' out",
        ),
        ("patternProperty", _UNSUPPORTED, "has 'patternProperties' that overlap; make them differ"),
        (
            "circular|Pointer|Resource|anchor",
            _UNSUPPORTED,
            "has a '$ref' that names no part of it, or one that leads to itself beside other "
            "keywords",
        ),
        ("", _UNSUPPORTED, "is no JSON schema, or none that can be written by"),
    )
)
"""What llguidance says, and what is made of it; the first that fits counts."""


def check(source: str, lexicon: Lexicon, *, param: str, keeps: bool = True) -> None:
    """Compile *source* for *lexicon*, so that a request with it begins at once.

    Takes up to some tenths of a second: not for the event loop. What it refuses it names by
    keyword; no string of the schema is repeated.

    Args:
        source: See `Grammar`.
        lexicon: The engine's.
        param: The field of the request that asked for it.
        keeps: Whether what was compiled is kept.

    Raises:
        RequestError: If no text satisfies it (``unsatisfiable_schema``), it uses what is not
            supported (``unsupported_schema``) or would take too long (``schema_too_complex``).
    """
    matcher = Compiler.of(lexicon).matcher(source, keeps=keeps)
    said = matcher.get_error() if matcher.is_error() else _tried(matcher, len(lexicon))
    if said:
        raise _refusal(said, param)


def _tried(matcher: LLMatcher, n_tokens: int) -> str:
    """Return what goes wrong with the first tokens, in place; nothing if all is well."""
    for _ in range(N_PROBED):
        mask = matcher.compute_bitmask()
        if matcher.is_error():
            return matcher.get_error()
        token = _lowest(mask)
        if token >= n_tokens:
            break
        if not matcher.consume_token(token):
            return matcher.get_error()
    return ""


def _lowest(mask: bytes) -> int:
    bits = int.from_bytes(mask, "little")
    return (bits & -bits).bit_length() - 1


def _refusal(said: str, param: str) -> RequestError:
    """Return the error for what llguidance *said*; the lines behind its first are the schema."""
    first = said.partition("\n")[0]
    if keys := _UNKNOWN.search(first):
        names = ", ".join(map(repr, sorted(_KEYWORDS.intersection(json.loads(keys[1])))))
        what = f"has {names or 'keywords'} in it, which cannot be written by; leave that out"
        return RequestError(f"{param!r} {what}", param=param, code=_UNSUPPORTED)
    code, what = next((code, what) for sign, code, what in _SIGNS if sign.search(first))
    return RequestError(f"{param!r} {what}", param=param, code=code)
