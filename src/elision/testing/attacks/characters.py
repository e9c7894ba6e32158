"""Character level: the same letters, drawn, spaced or accompanied otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.resources import files
from random import Random
from string import ascii_letters
from typing import Final
from unicodedata import normalize

from elision.testing.attacks.transform import Enforced, Transform, Writing, each, plain

_MARKS: Final = [chr(code) for code in range(0x0300, 0x0370)]
_INVISIBLE: Final = "\u200b\u200c\u200d\u2060"
_CYRILLIC: Final = str.maketrans("aceopxyijsABCEHKMOPTXS", "асеорхуіјѕАВСЕНКМОРТХЅ")
_LEET: Final = str.maketrans("aAbBcCeEgGiIlLoOsStTzZ", "4488((3399" + "1111" + "00557722")
_LEET_FEW: Final = dict(zip("ieaost", "134057", strict=True))
_BIDI: Final = {
    "rlo": ("\u202e", "\u202c"),
    "rle": ("\u202b", "\u202c"),
    "rli": ("\u2067", "\u2069"),
}
_ACCENTS: Final = {"acute": "\u0301", "grave": "\u0300", "tilde": "\u0303", "diaeresis": "\u0308"}
_SPACES: Final = {
    "tab": "\t", "no-break space": "\u00a0", "thin space": "\u2009", "hair space": "\u200a",
    "narrow no-break space": "\u202f", "ideographic space": "\u3000", "underscore": "_",
}  # fmt: skip
_JOINTS: Final = {"spaces": " ", "dashes": "-", "dots": ".", "newlines": "\n"}


def shifted(capital: int, small: int, digit: int | None = None) -> Writing:
    """Return the writing that draws ASCII letters from two other alphabets.

    Args:
        capital: Code point that stands for *A*.
        small: Code point that stands for *a*.
        digit: Code point that stands for *0*; None leaves digits as they are.
    """

    def change(char: str) -> str:
        if "A" <= char <= "Z":
            return chr(capital + ord(char) - 65)
        if "a" <= char <= "z":
            return chr(small + ord(char) - 97)
        return chr(digit + int(char)) if digit is not None and "0" <= char <= "9" else char

    return each(change)


def joined(separator: str) -> Writing:
    """Return the writing that puts *separator* between all characters."""
    return lambda text, _: separator.join(text)


def _random_case(text: str, rng: Random) -> str:
    return "".join(rng.choice((str.lower, str.upper))(char) for char in text)


def _alternating(text: str) -> str:
    return "".join(c.upper() if n % 2 else c.lower() for n, c in enumerate(text))


def _marked(count: int) -> Writing:
    return lambda text, rng: "".join(
        char + "".join(rng.choices(_MARKS, k=count)) if char.isalpha() else char for char in text
    )


def _accented(mark: str) -> Writing:
    return each(lambda char: normalize("NFC", char + mark) if char.lower() in "aeiou" else char)


def _invisible(text: str, rng: Random) -> str:
    return "".join(c + rng.choice(_INVISIBLE) if rng.random() < 0.7 else c for c in text)


def _few_invisible(text: str, rng: Random) -> str:
    for _ in range(min(24, len(text))):
        at = rng.randrange(len(text) + 1)
        text = text[:at] + rng.choice(_INVISIBLE) + text[at:]
    return text


def _bidi_swapped(text: str) -> str:
    """Store every second pair of neighbours the wrong way round, and have it drawn right."""
    pairs = (text[at : at + 2] for at in range(0, len(text), 2))
    return "".join(
        f"\u202d\u2066\u202e\u2066{p[1]}\u2069\u2066{p[0]}\u2069\u202c\u2069\u202c"
        if len(p) == 2
        else p
        for p in pairs
    )


def _deleted(text: str, rng: Random) -> str:
    return "".join(char + rng.choice(ascii_letters) + "\b" for char in text)


def _intentional() -> Mapping[str, str]:
    """Return the look-alikes of Unicode Technical Standard 39, by the letter they look like."""
    source = files("elision.testing.attacks") / "data" / "unicode_intentional_homoglyphs.txt"
    found: dict[str, str] = {}
    for line in source.read_text(encoding="utf-8-sig").splitlines():
        code, _, other = line.partition("#")[0].partition(";")
        if not other.strip():
            continue
        one, two = (chr(int(part, 16)) for part in (code, other))
        found.setdefault(one, two)
        found.setdefault(two, one)
    return found


_LOOK_ALIKES: Final = _intentional()


def _homoglyphs(text: str, rng: Random) -> str:
    able = [at for at, char in enumerate(text) if char in _LOOK_ALIKES]
    chosen = set(rng.sample(able, k=max(1, len(able) // 2))) if able else set[int]()
    return "".join(_LOOK_ALIKES[c] if at in chosen else c for at, c in enumerate(text))


def _some_leet(text: str, rng: Random) -> str:
    return "".join(
        _LEET_FEW[c.lower()] if c.lower() in _LEET_FEW and rng.random() < 0.5 else c for c in text
    )


def _stretched(text: str, rng: Random) -> str:
    return "".join(char * rng.randint(1, 3) if char.isalpha() else char for char in text)


def _camel(text: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in text.split())


def _punctuated(text: str) -> str:
    return "".join(c + "!" if n % 3 == 2 else c for n, c in enumerate(text))


def _typed_wrong(text: str, rng: Random) -> str:
    able = [at for at in range(1, len(text) - 2) if text[at : at + 2].isalpha()]
    if not able:
        return text
    at = rng.choice(able)
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def _off_by_one(text: str, rng: Random) -> str:
    return "".join(chr(ord(c) + rng.choice((-1, 1))) if rng.random() < 0.05 else c for c in text)


def _in_markdown(text: str) -> str:
    return "".join(f"**{c}**" if n % 2 and c.isalpha() else c for n, c in enumerate(text))


def _in_emoji(text: str) -> str:
    return "\U0001f642".join(text)


def _replaced(space: str) -> Callable[[str], str]:
    return lambda text: text.replace(" ", space)


def _character(name: str, write: Writing, source: str, enforced: Enforced = "output") -> Transform:
    return Transform(name=name, family="character", write=write, enforced=enforced, source=source)


CHARACTERS: Final = (
    _character("lower case", plain(str.lower), "promptfoo"),
    _character("upper case", plain(str.upper), "promptfoo"),
    _character("swapped case", plain(str.swapcase), "promptfoo"),
    _character("alternating case", plain(_alternating), "promptfoo"),
    _character("random case", _random_case, "promptfoo"),
    _character("camel case", plain(_camel), "promptfoo"),
    _character("one mark per letter", _marked(1), "PyRIT"),
    _character("zalgo 3", _marked(3), "promptfoo"),
    _character("zalgo 8", _marked(8), "PyRIT"),
    *(_character(name, _accented(mark), "PyRIT") for name, mark in _ACCENTS.items()),
    _character("decomposed", plain(lambda text: normalize("NFD", text)), "UAX 15"),
    _character("zero-width", joined("\u200b"), "PyRIT"),
    _character("invisible at random", _invisible, "promptfoo"),
    _character("24 invisible", _few_invisible, "garak"),
    _character("soft hyphens", joined("\u00ad"), "garak"),
    _character("tatweel", joined("\u0640"), "ours"),
    *(
        _character(f"bidi {name}", plain(lambda t, a=a, b=b: a + t + b), "PyRIT")  # type: ignore[misc]
        for name, (a, b) in _BIDI.items()
    ),
    _character("bidi swapped", plain(_bidi_swapped), "garak", "detection"),
    _character("backspaces", _deleted, "garak"),
    _character("Cyrillic look-alikes", plain(lambda t: t.translate(_CYRILLIC)), "garak"),
    _character("intentional look-alikes", _homoglyphs, "UTS 39"),
    _character("full-width", shifted(0xFF21, 0xFF41, 0xFF10), "PyRIT"),
    _character("mathematical bold", shifted(0x1D400, 0x1D41A, 0x1D7CE), "PyRIT"),
    _character("circled", shifted(0x24B6, 0x24D0), "PyRIT"),
    _character("squared", shifted(0x1F130, 0x1F130), "PyRIT"),
    _character("negative squared", shifted(0x1F170, 0x1F170), "PyRIT"),
    _character("regional indicators", shifted(0x1F1E6, 0x1F1E6), "PyRIT"),
    _character("leet", plain(lambda text: text.translate(_LEET)), "PyRIT"),
    _character("some leet", _some_leet, "garak"),
    _character("stretched", _stretched, "ours"),
    *(_character(name, joined(joint), "PyRIT") for name, joint in _JOINTS.items()),
    *(_character(name, plain(_replaced(space)), "promptfoo") for name, space in _SPACES.items()),
    _character("no spaces", plain(_replaced("")), "promptfoo"),
    _character("every third punctuated", plain(_punctuated), "promptfoo"),
    _character("Markdown between letters", plain(_in_markdown), "guard.md"),
    _character("emoji between letters", plain(_in_emoji), "guard.md"),
    _character("two letters swapped", _typed_wrong, "PyRIT", "unclaimed"),
    _character("code points off by one", _off_by_one, "PyRIT", "unclaimed"),
)
