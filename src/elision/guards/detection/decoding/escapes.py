r"""Characters written as escapes inside other text: %41, &#65;, \u0041, =41, "\n"."""

from __future__ import annotations

import binascii
import html
import quopri
import re
from collections.abc import Iterator
from typing import Final

from elision.guards.detection.decoding.found import Decoded, replaced

_PERCENT: Final = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_ENTITY: Final = re.compile(r"&(?:#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});?")
_BACKSLASH: Final = re.compile(
    r"(?:\\u[0-9A-Fa-f]{4})+|\\u\{[0-9A-Fa-f]{1,6}\}|\\U[0-9A-Fa-f]{8}"
    r"|(?:\\x[0-9A-Fa-f]{2})+|(?:\\[0-3][0-7]{2})+|\\[nrtbf\"'/\\]"
)
_U_PLUS: Final = re.compile(r"(?:[Uu]\+|&#|#)[0-9A-Fa-f]{4,6};?(?:[\s,]{0,2}(?![\w]))?")
_QUOTED: Final = re.compile(r"(?:=[0-9A-Fa-f]{2})+|=[ \t]*\r?\n")
_MIME: Final = re.compile(r"=\?[\w-]{1,40}\?([bBqQ])\?([^?\s]{0,8192})\?=(?:\s+(?==\?))?")
_BREAKS: Final = {"n": "\n", "r": "\r", "t": "\t", "b": "", "f": "\n"}


def percent_escapes(text: str) -> Iterator[Decoded]:
    """Yield *text* with ``%41`` and the like decoded, if there are any."""
    yield from replaced("percent", text, _PERCENT, _percent)


def _percent(code: str) -> str:
    return bytes.fromhex(code.replace("%", "")).decode("utf-8", "replace")


def entities(text: str) -> Iterator[Decoded]:
    """Yield *text* with HTML's character references decoded, if there are any."""
    yield from replaced("html", text, _ENTITY, html.unescape)


def backslashes(text: str) -> Iterator[Decoded]:
    r"""Yield *text* with ``\u0041``, ``\x41``, ``\101``, ``\n`` and the like decoded."""
    yield from replaced("backslash", text, _BACKSLASH, _backslash)


def _backslash(code: str) -> str:
    kind, digits = code[1], code[2:].strip("{}")
    if kind == "x":
        return bytes.fromhex(code.replace("\\x", "")).decode("utf-8", "replace")
    if kind in "0123":
        codes = code[1:].split("\\")
        return bytes(int(octal, 8) for octal in codes).decode("utf-8", "replace")
    if kind == "u" and len(code) >= 6 and code[2] != "{":
        units = bytes.fromhex(code.replace("\\u", ""))
        return units.decode("utf-16-be", "replace")
    if kind in "uU":
        return _char(int(digits, 16))
    return _BREAKS.get(kind, kind)


def code_points(text: str) -> Iterator[Decoded]:
    """Yield *text* with ``U+0041`` and the like decoded, blanks between them left out."""
    yield from replaced("code points", text, _U_PLUS, _code_point)


def _code_point(code: str) -> str:
    digits = re.search(r"[0-9A-Fa-f]{4,6}", code)
    return _char(int(digits[0], 16)) if digits else code


def _char(code: int) -> str:
    return "�" if code >= 0x110000 or 0xD800 <= code < 0xE000 else chr(code)


def quoted_printable(text: str) -> Iterator[Decoded]:
    """Yield *text* with ``=41`` decoded and soft line breaks undone, if there are any."""
    yield from replaced("quoted-printable", text, _QUOTED, _quoted)


def _quoted(code: str) -> str:
    return quopri.decodestring(code).decode("utf-8", "replace")


def mime_words(text: str) -> Iterator[Decoded]:
    """Yield *text* with MIME's encoded words (``=?utf-8?b?...?=``) decoded, if there are any."""
    yield from replaced("mime", text, _MIME, _mime)


def _mime(word: str) -> str:
    match = _MIME.match(word)
    assert match is not None
    kind, code = match[1].lower(), match[2]
    if kind == "q":
        return quopri.decodestring(code, header=True).decode("utf-8", "replace")
    try:
        data = binascii.a2b_base64(code + "=" * (-len(code) % 4))
    except binascii.Error:
        return code
    return data.decode("utf-8", "replace")
