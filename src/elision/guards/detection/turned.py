"""A phrase's letters in other orders and alphabets, so that texts need not be turned 25 ways."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final
from unicodedata import combining, normalize

from elision.guards.phrases.normal import SEP, N, N_b

_FIRST, _LAST = "a", "z"
_VOWELS: Final = frozenset("aeiou")
_UMLAUTS: Final = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe", "þ": "th", "ð": "dh"}
)
_ROMAN: Final = str.maketrans(
    dict(
        zip(
            "абвгдеёжзийклмнопрстуфхцчшщъыьэюя" + "αβγδεζηθικλμνξοπρσςτυφχψω",
            "a b v g d e e zh z i i k l m n o p r s t u f kh ts ch sh shch  y  e yu ya "
            "a v g d e z i th i k l m n x o p r s s t y f ch ps o".split(" "),
            strict=True,
        )
    )
)


def orders(text: str) -> Iterator[tuple[str, str]]:
    """Yield the letters of *text* in other orders, each with its name; as it stands left out.

    Reversed as a whole; each word reversed; the words in reverse. Words are what blanks set apart,
    and once more what anything but letters and digits does (``Yun-Hwa``).
    """
    letters = N(text)
    yield "reversed", letters[::-1]
    for words in (text.split(), N_b(text).split(SEP)):
        parts = [N(word) for word in words]
        yield "words reversed", "".join(part[::-1] for part in parts)
        yield "order reversed", "".join(reversed(parts))


def romanised(text: str) -> Iterator[str]:
    """Yield *text* as it is written in ASCII where that is more than to drop the accents.

    German and Scandinavian letters as two (``Müller``: *Mueller*); Russian and Greek ones by sound.
    """
    small = text.casefold()
    bare = "".join(char for char in normalize("NFKD", small) if not combining(char))
    for letters, table in ((small, _UMLAUTS), (bare, _ROMAN)):
        written = letters.translate(table)
        if written != letters:
            yield written


def differences(letters: str) -> str:
    """Return the steps from letter to letter modulo 26, one symbol each.

    A rotation of the alphabet leaves them as they are, and atbash turns each into its `opposite`.
    What is no letter from *a* to *z* stays what it is, and a letter behind it is a ``*``.
    """
    return "".join(map(_STEPS.__getitem__, pairwise(letters)))


def opposite(steps: str) -> str:
    """Return *steps* of the mirrored alphabet."""
    return steps.translate(_OPPOSITE)


class _Steps(dict[tuple[str, str], str]):
    def __missing__(self, pair: tuple[str, str]) -> str:
        before, letter = pair
        if not _FIRST <= letter <= _LAST:
            return letter
        if not _FIRST <= before <= _LAST:
            return "*"
        step = self[pair] = _step((ord(letter) - ord(before)) % 26)
        return step


def _step(number: int) -> str:
    return chr(0x1F000 + number)  # no letter, so that a step is never taken for what stays as it is


_STEPS: Final = _Steps()
_OPPOSITE: Final = str.maketrans({_step(n): _step(-n % 26) for n in range(26)})


def rotation(before: str, after: str) -> tuple[int, bool]:
    """Return how *after* was turned out of *before*, both of the same differences up to sign.

    Returns:
        Steps from 0 to 25, and whether the alphabet was mirrored first; 0 where there is no letter
        that could be turned.
    """
    both = zip(before, after, strict=True)
    pairs = [(ord(b) - 97, ord(a) - 97) for b, a in both if _FIRST <= b <= _LAST]
    steps = {(a - b) % 26 for b, a in pairs} or {0}
    if len(steps) == 1:
        return steps.pop(), False
    return (pairs[0][1] + pairs[0][0] - 25) % 26, True


def scrambled(word: str) -> str:
    """Return the key of *word* that does not depend on the order of its letters."""
    return "".join(sorted(word))


def pig_latin(words: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield the `scrambled` keys of *words* in Pig Latin without its *ay*, by each convention."""
    for link in ("w", "y", "", "h"):
        yield tuple(scrambled(word + link * (word[0] in _VOWELS)) for word in words)
