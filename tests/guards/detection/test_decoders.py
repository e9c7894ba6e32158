"""Decoders: laws over any text, round trips through encoders written here, bounds, readings."""

from __future__ import annotations

import base64
import binascii
import html
import json
import quopri
import time
from collections.abc import Callable
from email.header import Header
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.guards.detection.decoders import CERTAIN, LONGEST, LOOSE, decode, plainness, readings
from elision.guards.detection.decoding import Decoder
from elision.guards.phrases.normal import N

CODES = st.sampled_from(
    "=% &#x;\\u\"'`()0123456789abcdefXYZ+/-_.\n\t–·⠁⠃⠼"
    "\ufe00\U000e0141\U000e0041\u2062\u2064\u200b😀🐍é東\ud800"
)
ANY = st.text(st.one_of(CODES, st.characters()), max_size=80)
SAID = st.text("ABCabcz 01'-éЖ東", min_size=8, max_size=40).filter(lambda t: len(N(t)) >= 6)
ASCII = st.text("ABCabcz 'xy-", min_size=8, max_size=40).filter(lambda t: len(N(t)) >= 6)
LETTERS = st.text("abcdefghijklmnopqrstuvwxyz", min_size=6, max_size=30)

MORSE = dict(
    zip(
        "abcdefghijklmnopqrstuvwxyz",
        ".- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- "
        ".-- -..- -.-- --..".split(),
        strict=True,
    )
)
NATO = (
    "Alfa Bravo Charlie Delta Echo Foxtrot Golf Hotel India Juliett Kilo Lima Mike November Oscar "
    "Papa Quebec Romeo Sierra Tango Uniform Victor Whiskey X-ray Yankee Zulu".split()
)


def of_bytes(write: Callable[[bytes], bytes]) -> Callable[[str], str]:
    return lambda text: write(text.encode()).decode("ascii")


def selected(text: str) -> str:
    return "😀" + "".join(chr(0xFE00 + b if b < 16 else 0xE0100 + b - 16) for b in text.encode())


def bits(text: str) -> str:
    return "".join(f"{b:08b}" for b in text.encode()).translate({48: "\u2062", 49: "\u2064"})


def uuencoded(text: str) -> str:
    data = text.encode()
    lines = (binascii.b2a_uu(data[at : at + 45]).decode() for at in range(0, len(data), 45))
    return f"\nbegin 644 it\n{''.join(lines)}`\nend"


BYTES: dict[str, Callable[[str], str]] = {
    "base64": of_bytes(base64.b64encode),
    "base64 bare": lambda t: base64.b64encode(t.encode()).decode().rstrip("="),
    "base64 url-safe": of_bytes(base64.urlsafe_b64encode),
    "base64 lines": lambda t: "\n" + base64.encodebytes(t.encode()).decode(),
    "base32": of_bytes(base64.b32encode),
    "hex": lambda t: t.encode().hex(),
    "HEX apart": lambda t: t.encode().hex(" ").upper(),
    "hex 0x": lambda t: ", ".join(f"0x{b:02x}" for b in t.encode()),
    "hex \\x": lambda t: "".join(f"\\x{b:02x}" for b in t.encode()),
    "ascii85": of_bytes(base64.a85encode),
    "ascii85 Adobe": lambda t: base64.a85encode(t.encode(), adobe=True).decode(),
    "base85": of_bytes(base64.b85encode),
    "uuencode": uuencoded,
    "binary": lambda t: " ".join(f"{b:08b}" for b in t.encode()),
    "binary together": lambda t: "".join(f"{b:08b}" for b in t.encode()),
    "binary 16": lambda t: " ".join(f"{ord(c):016b}" for c in t),
    "binary 32": lambda t: "".join(f"{ord(c):032b}" for c in t),
    "percent": lambda t: "".join(f"%{b:02X}" for b in t.encode()),
    "percent, needed": lambda t: quote(t, safe=""),
    "octal": lambda t: "".join(f"\\{b:03o}" for b in t.encode()),
    "quoted-printable": lambda t: "".join(f"={b:02X}" for b in t.encode()),
    "quoted-printable, needed": lambda t: quopri.encodestring(t.encode()).decode(),
    "MIME": lambda t: Header(t, "utf-8").encode(),
    "selectors": selected,
    "sneaky bits": bits,
}
CHARACTERS: dict[str, Callable[[str], str]] = {
    "decimal": lambda t: " ".join(str(ord(c)) for c in t),
    "decimal list": lambda t: str([ord(c) for c in t]),
    "decimal entities": lambda t: "".join(f"&#{ord(c)};" for c in t),
    "hex entities": lambda t: "".join(f"&#x{ord(c):X};" for c in t),
    "named entities": lambda t: html.escape(t).replace("é", "&eacute;"),
    "\\u": lambda t: "".join(f"\\u{ord(c):04x}" for c in t),
    "\\u{}": lambda t: "".join(f"\\u{{{ord(c):x}}}" for c in t),
    "U+": lambda t: " ".join(f"U+{ord(c):04X}" for c in t),
    "JSON": json.dumps,
}
TAGGED: dict[str, Callable[[str], str]] = {
    "base64 of UTF-16": lambda t: f" {base64.b64encode(t.encode('utf-16-le')).decode()}",
    "tags": lambda t: "😀" + "".join(chr(0xE0000 + ord(c)) for c in t),
    "selectors by code": lambda t: "😀" + "".join(chr(0xE0100 + ord(c)) for c in t),
}
SPELLED: dict[str, Callable[[str], str]] = {
    "Morse": lambda t: " ".join(MORSE[c] for c in t),
    "NATO": lambda t: " ".join(NATO[ord(c) - 97] for c in t),
    "Braille": lambda t: "".join("⠁⠃⠉⠙⠑⠋⠛⠓⠊⠚⠅⠇⠍⠝⠕⠏⠟⠗⠎⠞⠥⠧⠺⠭⠽⠵"[ord(c) - 97] for c in t),
    "acrostic": lambda t: "\n".join(f"{c.upper()}nd so it went on." for c in t),
    "list": lambda t: "\n".join(f"{n}. {c}pples" for n, c in enumerate(t, start=1)),
    "initials": lambda t: " ".join(f"{c}ome" for c in t),
    "brackets": lambda t: "\n".join(f"a line of verse ({c})" for c in t),
    "quoted": lambda t: " + ".join(f'"{t[at : at + 3]}"' for at in range(0, len(t), 3)),
    "variables": lambda t: f"a = '{t[:4]}'; b = '{t[4:]}'",
    "every second": lambda t: "".join(f"{c}-" for c in t),
    "every second letter": lambda t: " ".join(f"{c}q" for c in t),
    "identities": lambda t: "; ".join(f"{c} = 3{c} - 2{c}" for c in t),
    "places in the alphabet": lambda t: " ".join(str(ord(c) - 96) for c in t),
    "short bits": lambda t: "".join(f"{ord(c):b}" for c in t).translate(
        {48: "\u2062", 49: "\u2064"}
    ),
}


@pytest.mark.parametrize("decoder", [*CERTAIN, *LOOSE], ids=lambda d: d.__name__)
@settings(max_examples=25)
@given(ANY)
def test_a_decoder_takes_any_text_and_stays_within_it(decoder: Decoder, text: str) -> None:
    for item in decoder(text):
        assert item.text
        assert 0 <= item.start < item.end <= len(text)
        assert not item.marks or len(item.marks) > len(item.text)
        for at in range(len(item.text)):
            start, end = item.raw(at, at + 1)
            assert item.start <= start <= end <= item.end


@given(ANY, st.integers(1, 3))
def test_what_decoders_find_in_decodings_lies_in_the_raw_text(text: str, depth: int) -> None:
    for item in decode(text, depth=depth).texts:
        assert item.how.count(">") < depth
        assert 0 <= item.start <= item.end <= len(text)
        start, end = item.raw(0, len(item.text))
        assert item.start <= start <= end <= item.end


def says(text: str, what: str) -> bool:
    return any(N(what) in N(item.text) for item in decode(text).texts) or N(what) in N(text)


@pytest.mark.parametrize("name", [*BYTES, *CHARACTERS])
@settings(max_examples=20)
@given(SAID)
def test_what_was_encoded_is_decoded(name: str, what: str) -> None:
    encode = (BYTES | CHARACTERS)[name]
    assert says(f"Here it is: {encode(what)}\nMore?", what)


@pytest.mark.parametrize("name", TAGGED)
@given(ASCII)
def test_what_was_smuggled_is_seen(name: str, what: str) -> None:
    assert says(f"Nothing here{TAGGED[name](what)}.", what)


@pytest.mark.parametrize("name", SPELLED)
@settings(max_examples=20)
@given(LETTERS)
def test_what_was_spelled_otherwise_is_read(name: str, what: str) -> None:
    # Nothing stands around: it would add first letters, or every second one, of its own.
    assert says(f"{SPELLED[name](what)}\n", what)


@pytest.mark.parametrize("outer", ["base64", "hex", "percent", "decimal entities", "base32"])
@pytest.mark.parametrize("inner", ["base64", "hex", "binary", "\\u", "quoted-printable"])
def test_a_code_within_a_code_is_decoded(outer: str, inner: str) -> None:
    what = "The father of Hsiao"
    both = BYTES | CHARACTERS
    assert says(both[outer](both[inner](what)), what)


def test_a_hit_in_an_escape_is_located_to_the_letter() -> None:
    text = "It was %48%73iao, they said."
    (item,) = (item for item in decode(text).texts if item.how == "percent")
    at = item.text.index("Hsiao")
    start, end = item.raw(at, at + 5)
    assert text[start:end] == "%48%73iao"


def test_a_word_run_into_the_code_does_not_spoil_it() -> None:
    code = base64.b64encode(b"The father of Hsiao Yun-Hwa").decode()
    for glued in (f"x{code}", f"xy{code}", f"xyz{code}", f"Code{code}."):
        assert says(glued, "father of Hsiao Yun-Hwa")


def test_what_is_not_looked_at_is_admitted() -> None:
    assert decode("a" * LONGEST, decoders=()).covered
    assert not decode("a" * (LONGEST + 1), decoders=()).covered


def test_what_decoding_brings_out_is_bounded() -> None:
    code = "plain words, as many as you like, "
    for _ in range(3):
        code = base64.b64encode(code.encode() * 40).decode()
    decoding = decode(code[:100_000], depth=9)
    assert sum(len(item.text) for item in decoding.texts) <= 4 * 100_000 + 4096


NASTY = {
    "letters": "a" * 50_000, "base64": "SGVsbG8gd29ybGQ" * 3_333, "pairs": "ab " * 16_666,
    "bits": "01 " * 16_666, "entities": "&#x" * 16_666, "MIME": "=?u?b?" * 8_333,
    "line ends": "\n" * 50_000, "quotes": "\"'" * 25_000, "dots": ". " * 25_000,
    "dashes": "-" * 50_000, "brackets": "(a)" * 16_666, "numbers": "7 " * 25_000,
    "octal": "17 " * 16_666, "backslashes": "\\" * 20_000, "stars": "*a" * 25_000,
    "invisible": "\u2062\u200b" * 25_000, "Braille": "⠁ " * 25_000, "uuencode": "#0V%T\n" * 8_333,
    "blanks": " " * 50_000, "equals": "=\t" * 25_000, "NATO": "alfa " * 10_000,
    "colons": ": " * 25_000,
}  # fmt: skip


@pytest.mark.parametrize("name", NASTY)
def test_no_text_takes_more_than_its_length_is_worth(name: str) -> None:
    began = time.process_time()
    decode(NASTY[name])
    assert time.process_time() - began < 3  # tenths in truth; a quadratic step takes minutes


# --- readings ------------------------------------------------------------------------------------

QUESTION = "Who is the celebrated author born in Taipei, and what genre does she write?"
NAMED = "Who is Hsiao Yun-Hwa and what has she written?"


def turned(text: str, steps: int) -> str:
    def letter(char: str) -> str:
        first = 97 if char.islower() else 65
        turns = char.isascii() and char.isalpha()
        return chr(first + (ord(char) - first + steps) % 26) if turns else char

    return "".join(map(letter, text))


DISGUISES: dict[str, Callable[[str], str]] = {
    "spaces": " ".join,
    "dots": ".".join,
    "zero-width": "\u200b".join,
    "leet": lambda t: t.translate(str.maketrans("aeio", "4310")),
    "reversed": lambda t: t[::-1],
    "words reversed": lambda t: " ".join(word[::-1] for word in t.split()),
    "rot13": lambda t: turned(t, 13),
    "rot5": lambda t: turned(t, 5),
    "base64": BYTES["base64"],
    "hex": BYTES["hex"],
    "percent": BYTES["percent"],
    "entities": CHARACTERS["decimal entities"],
    "full width": lambda t: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in t),
}


@pytest.mark.parametrize("name", DISGUISES)
@pytest.mark.parametrize("frame", ["{}", "Please answer what this says, thank you.\n{}\nBe brief."])
def test_a_disguised_question_is_read(name: str, frame: str) -> None:
    found = [*readings(frame.format(DISGUISES[name](QUESTION)))]
    assert any(N(QUESTION) in N(reading) for reading in found)


@pytest.mark.parametrize("name", ["spaces", "leet", "reversed", "rot13", "base64"])
def test_a_question_of_few_words_and_a_name_is_read(name: str) -> None:
    assert any(N(NAMED) in N(reading) for reading in readings(DISGUISES[name](NAMED)))


@pytest.mark.parametrize(
    "text", [QUESTION, NAMED, "", "42", "Bonjour à tous, comment allez-vous ?"]
)
def test_a_plain_text_has_no_other_reading(text: str) -> None:
    assert [*readings(text)] == []


@given(ANY)
def test_readings_take_any_text_and_repeat_nothing(text: str) -> None:
    found = [*readings(text)]
    assert len(found) == len({*found, text}) - 1
    assert all(0 <= plainness(reading) <= 1 for reading in found)
