"""Bytes written in an alphabet of digits and letters: base 64 to base 2, uuencode, code numbers."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from elision.guards.detection.decoding.found import Decoded, legible

_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{8,}(?:={1,2}|(?:%3[Dd]){1,2})?")
_BASE64_LINES: Final = re.compile(
    r"(?m)(?:^[ \t>]*[A-Za-z0-9+/_-]{16,}={0,2}[ \t]*\r?\n)+[ \t>]*[A-Za-z0-9+/_-]{1,}={0,2}"
)
_CODED: Final = re.compile(r"[A-Z0-9+/=]")  # a lower-case word alone is no code
_BASE32: Final = re.compile(r"[A-Z2-7]{8,}={0,6}|[a-z2-7]{16,}={0,6}")
_HEX: Final = (
    re.compile(r"(?<![0-9A-Fa-f])(?:[0-9A-Fa-f]{2}){6,}"),
    re.compile(
        r"(?<![0-9A-Za-z])(?:(?:0[xX]|\\x)?[0-9A-Fa-f]{2}[\s,:;.-]{1,3}){4,}"
        r"(?:0[xX]|\\x)?[0-9A-Fa-f]{2}"
    ),
)
_NOT_HEX: Final = re.compile(r"0[xX]|[^0-9A-Fa-f]")
_BINARY: Final = re.compile(r"[01](?:[\s,;_-]{0,2}[01]){27,}")
_NUMBERS: Final = re.compile(r"(?<!\d)\d{1,6}(?:[\s,;:./-]{1,2}\d{1,6}){4,}")
_TRIPLES: Final = re.compile(r"(?<!\d)(?:[01]\d\d){6,}")
_OCTAL: Final = re.compile(r"(?<!\d)\\?[0-3]?[0-7]{2}(?:[\s,]{1,2}[0-3]?[0-7]{2}){4,}")
_UU_LINE: Final = re.compile(r"(?m)(?:^|(?<=[\s\"'`:]))([!-M])([ -`]{2,80})$")
_WORD: Final = re.compile(r"\S{10,}")
_MARKUP: Final = "\"'`“”‘’.,:;()[]{}<>*"
_LONGEST_85: Final = 4096  # base64.a85decode is a loop in Python
_SAMPLE: Final = 20
_WIDTHS: Final = (8, 16, 32, 7)
_HEAD, _TAIL = "<~", "~>"


def base64_text(text: str) -> Iterator[Decoded]:
    """Yield what base64 says, ordinary or URL-safe, padded or not, in one line or in many."""
    for match in _BASE64.finditer(text):
        run = match[0]
        if _CODED.search(run):
            yield from _aligned(run, match.start(), match.end())
    for match in _BASE64_LINES.finditer(text):
        yield from _aligned(re.sub(r"[\s>]+", "", match[0]), match.start(), match.end())


def _aligned(run: str, start: int, end: int) -> Iterator[Decoded]:
    """Yield the readings of *run* that begin at its first four symbols, as far as they are text."""
    run = run.partition("=")[0].partition("%")[0].replace("-", "+").replace("_", "/")
    for skipped in range(4):
        code = run[skipped:]
        code = code[: len(code) - (len(code) % 4 == 1)]
        said = legible(binascii.a2b_base64(code + "=" * (-len(code) % 4)))
        if said:
            yield Decoded(said, "base64", start, end)


def base32_text(text: str) -> Iterator[Decoded]:
    """Yield what base32 says."""
    for match in _BASE32.finditer(text):
        code = match[0].rstrip("=").upper()
        code = code[: len(code) - {1: 1, 3: 1, 6: 1}.get(len(code) % 8, 0)]
        said = legible(base64.b32decode(code + "=" * (-len(code) % 8)))
        if said:
            yield Decoded(said, "base32", *match.span())


def hex_text(text: str) -> Iterator[Decoded]:
    r"""Yield what pairs of hexadecimal digits say: ``4869``, ``48 69``, ``0x48, 0x69``."""
    for match in (match for form in _HEX for match in form.finditer(text)):
        code = _NOT_HEX.sub("", match[0])
        said = legible(bytes.fromhex(code[: len(code) & ~1]))
        if said:
            yield Decoded(said, "hex", *match.span())


def binary_text(text: str) -> Iterator[Decoded]:
    """Yield what ones and zeros say, in groups of 8, 16, 32 or 7 bits, apart or run together."""
    for match in _BINARY.finditer(text):
        bits = re.sub(r"[^01]+", "", match[0])
        for width in _WIDTHS:
            places = range(0, len(bits) - width + 1, width)
            codes = [int(bits[at : at + width], 2) for at in places]
            said = _mostly_legible(bytes(codes)) if width == 8 else _characters(codes)
            if said:
                yield Decoded(said, "binary", *match.span())


def code_numbers(text: str) -> Iterator[Decoded]:
    """Yield what the code points of its characters say: decimal, apart or in threes; octal."""
    for match in _NUMBERS.finditer(text):
        said = _characters(map(int, re.findall(r"\d+", match[0])))
        if said:
            yield Decoded(said, "decimal", *match.span())
    for match in _TRIPLES.finditer(text):
        said = _characters(int(match[0][at : at + 3]) for at in range(0, len(match[0]), 3))
        if said:
            yield Decoded(said, "decimal", *match.span())
    for match in _OCTAL.finditer(text):
        said = _characters(int(code, 8) for code in re.findall(r"[0-7]+", match[0]))
        if said:
            yield Decoded(said, "octal", *match.span())


def _characters(codes: Iterable[int]) -> str:
    """Return the characters of *codes* if nearly all are fit to print, else nothing."""
    numbers = [*codes]
    chars = [chr(code) for code in numbers if 32 <= code < 0xD800 or 0xE000 <= code < 0x110000]
    if len(chars) * 10 < len(numbers) * 9:
        return ""
    return "".join(char for char in chars if char.isprintable())


def letter_numbers(text: str) -> Iterator[Decoded]:
    """Yield what the places of letters in the alphabet say: ``8 19 9 1 15``."""
    for match in _NUMBERS.finditer(text):
        codes = [int(code) for code in re.findall(r"\d+", match[0])]
        said = "".join(chr(96 + code) for code in codes if 1 <= code <= 26)
        if len(said) == len(codes):
            yield Decoded(said, "a1z26", *match.span(), certain=False)


def uuencoded(text: str) -> Iterator[Decoded]:
    """Yield what lines of uuencode say, one text for all lines that follow each other."""
    said, start, end = list[bytes](), 0, 0
    for match in _UU_LINE.finditer(text):
        line = _uu_line(match[1], match[2])
        if not line:
            continue
        if said and match.start() > end + 2:
            yield from _uu(said, start, end)
            said = []
        start = start if said else match.start()
        said.append(line)
        end = match.end()
    yield from _uu(said, start, end)


def _uu_line(size: str, code: str) -> bytes:
    n_bytes = ord(size) - 32
    n_symbols = (n_bytes + 2) // 3 * 4
    if not n_symbols - 3 <= len(code.rstrip()) <= n_symbols + 1:
        return b""
    try:
        return binascii.a2b_uu(size + code[:n_symbols])
    except binascii.Error:
        return b""


def _uu(said: list[bytes], start: int, end: int) -> Iterator[Decoded]:
    whole = legible(b"".join(said))
    if whole:
        yield Decoded(whole, "uuencode", start, end)


def base85_text(text: str) -> Iterator[Decoded]:
    """Yield what base85 says, Adobe's (``<~ ~>`` or bare) and that of Python and git.

    A run of more than 4,096 symbols is read up to there.
    """
    for match in _WORD.finditer(text):
        word = match[0][:_LONGEST_85]
        if word.isalpha() and word[1:].islower():
            continue
        for code in dict.fromkeys((word, word.strip(_MARKUP), word.removeprefix(_HEAD))):
            code = code.removesuffix(_TAIL)
            for how, read in (("ascii85", base64.a85decode), ("base85", base64.b85decode)):
                said = _read_85(read, code)
                if said:
                    yield Decoded(said, how, *match.span())


def _read_85(read: Callable[[str], bytes], code: str) -> str:
    """Return what *code* says, or nothing; its first symbols must say something already."""
    try:
        if len(code) > _SAMPLE and not _mostly_legible(read(code[:_SAMPLE])):
            return ""
        return _mostly_legible(read(code))
    except ValueError:
        return ""


def _mostly_legible(data: bytes) -> str:
    said, n_chars = legible(data), len(data.decode("utf-8", "replace"))
    return said if len(said) * 10 >= n_chars * 9 else ""
