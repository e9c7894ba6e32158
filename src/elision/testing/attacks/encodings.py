"""Encodings: the same bytes or code points, as a program would write them."""

from __future__ import annotations

import base64
import binascii
import json
import quopri
from collections.abc import Callable
from email.header import Header
from typing import Final
from urllib.parse import quote

from elision.testing.attacks.transform import Enforced, Transform, plain


def _of_bytes(write: Callable[[bytes], bytes]) -> Callable[[str], str]:
    return lambda text: write(text.encode()).decode("ascii")


def _bits(width: int) -> Callable[[str], str]:
    def write(text: str) -> str:
        numbers = text.encode() if width == 8 else map(ord, text)
        return " ".join(f"{number:0{width}b}" for number in numbers)

    return write


def _codes(form: str, joint: str = "") -> Callable[[str], str]:
    """Return the writing of every code point by *form*, a format string."""
    return lambda text: joint.join(form.format(ord(char)) for char in text)


def _bytes(form: str, joint: str = "") -> Callable[[str], str]:
    return lambda text: joint.join(form.format(number) for number in text.encode())


def _uuencoded(text: str) -> str:
    data = text.encode()
    lines = (data[at : at + 45] for at in range(0, len(data), 45))
    body = "".join(binascii.b2a_uu(line).decode("ascii") for line in lines)
    return f"begin 644 answer\n{body}`\nend"


def _quoted_printable(text: str) -> str:
    """Return every byte as ``=XX``, in lines of 24 bytes: a lazy encoder would leave letters."""
    data = [f"={number:02X}" for number in text.encode()]
    return "=\n".join("".join(data[at : at + 24]) for at in range(0, len(data), 24))


def _mime_lines(text: str) -> str:
    return base64.encodebytes(text.encode()).decode("ascii").rstrip("\n")


def _json_string(text: str) -> str:
    return json.dumps("".join(f"\\u{ord(c):04x}" if ord(c) < 0x10000 else c for c in text))


def _encoding(
    name: str, write: Callable[[str], str], enforced: Enforced, source: str = "garak"
) -> Transform:
    return Transform(
        name=name, family="encoding", write=plain(write), enforced=enforced, source=source
    )


ENCODINGS: Final = (
    _encoding("base64", _of_bytes(base64.b64encode), "output"),
    _encoding("base64 without padding", lambda t: _b64(t).rstrip("="), "output"),
    _encoding("base64 url-safe", _of_bytes(base64.urlsafe_b64encode), "output"),
    _encoding("base64 in lines", _mime_lines, "output"),
    _encoding("hex", lambda text: text.encode().hex(), "output"),
    _encoding("base16", _of_bytes(base64.b16encode), "output"),
    _encoding("hex spaced", _bytes("{:02x}", " "), "output"),
    _encoding("hex with 0x", _bytes("0x{:02x}", ", "), "output"),
    _encoding("hex with colons", _bytes("{:02X}", ":"), "output"),
    _encoding("hex escapes", _bytes("\\x{:02x}"), "output"),
    _encoding("percent", _bytes("%{:02X}"), "output"),
    _encoding("percent where needed", lambda text: quote(text, safe=""), "output"),
    _encoding("HTML decimal entities", _codes("&#{};"), "output"),
    _encoding("HTML hex entities", _codes("&#x{:x};"), "output"),
    _encoding("unicode escapes", _codes("\\u{:04x}"), "output"),
    _encoding("JSON string", lambda text: json.dumps(text), "output"),
    _encoding("JSON string of escapes", _json_string, "output", "ours"),
    _encoding("quoted-printable", _quoted_printable, "output"),
    _encoding("quoted-printable where needed",
              lambda t: quopri.encodestring(t.encode()).decode(), "output"),
    _encoding("MIME word", lambda text: Header(text, "utf-8").encode(), "output"),
    _encoding("base32", _of_bytes(base64.b32encode), "detection"),
    _encoding("ascii85", _of_bytes(base64.a85encode), "detection"),
    _encoding("base85", _of_bytes(base64.b85encode), "detection"),
    _encoding("uuencode", _uuencoded, "detection"),
    _encoding("binary", _bits(8), "detection"),
    _encoding("binary 16", _bits(16), "detection"),
    _encoding("binary 32", _bits(32), "detection"),
    _encoding("decimal codes", _codes("{}", " "), "detection"),
    _encoding("octal escapes", _bytes("\\{:03o}"), "unclaimed", "ours"),
)  # fmt: skip


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")
