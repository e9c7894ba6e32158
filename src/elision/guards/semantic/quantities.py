"""Numbers and dates in a text: what a sentence encoder hardly sees, compared exactly.

``05/11/1991``, *November 5th 1991*, *the fifth of November nineteen ninety-one* and
``1991-11-05`` are one date; ``1,234`` and *one thousand two hundred and thirty-four* one number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple
from unicodedata import digit

_MONTHS: Final[Mapping[str, int]] = {
    name: number
    for number, month in enumerate(
        "january february march april may june july "
        "august september october november december".split(),
        start=1,
    )
    for name in (month, month[:3])
} | {"sept": 9}
_SMALL: Final[Mapping[str, int]] = {
    word: number
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
        "fifteen sixteen seventeen eighteen nineteen".split()
    )
}
_TENS: Final[Mapping[str, int]] = {
    word: 10 * number
    for number, word in enumerate(
        "twenty thirty forty fifty sixty seventy eighty ninety".split(), start=2
    )
}
_SCALES: Final[Mapping[str, int]] = {"hundred": 100, "thousand": 1000, "million": 1_000_000}
_ORDINALS: Final[Mapping[str, int]] = {
    word: number
    for number, word in enumerate(
        "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth "
        "thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth".split(),
        start=1,
    )
} | {"twentieth": 20, "thirtieth": 30}

_MONTH: Final = "(?P<month>" + "|".join(sorted(_MONTHS, key=len, reverse=True)) + r")\b\.?"
_DAY: Final = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?\b"
_YEAR: Final = r"(?P<year>\d{4})\b"
_DATES: Final = tuple(
    re.compile(rf"(?<!\d){form}", re.IGNORECASE)
    for form in (
        rf"{_YEAR}(?P<sep>[-/.])(?P<month>\d{{1,2}})(?P=sep)(?P<day>\d{{1,2}})(?!\d)",
        r"(?P<day>\d{1,2})(?P<sep>[-/.])(?P<month>\d{1,2})(?P=sep)(?P<year>\d{4}|\d\d)(?!\d)",
        rf"{_DAY}\s+(?:day\s+)?(?:of\s+)?{_MONTH}(?:,?\s+(?:of\s+|in\s+)?{_YEAR})?",
        rf"\b{_MONTH}\s+(?:the\s+)?{_DAY}(?:,?\s+(?:of\s+|in\s+)?{_YEAR})?",
        rf"\b{_MONTH},?\s+(?:of\s+)?{_YEAR}",
    )
)
_GROUPED: Final = re.compile(r"(?<![\d.])\+?\(?\d+\)?(?:[-. /]{1,2}\(?\d{2,}\)?|-\d){1,7}(?!\d)")
_LEAST_GROUPED: Final = 7
"""Digits from which on groups are one number, as telephone and book numbers are written."""
_NUMBER: Final = re.compile(
    r"(?<![\d.,])\d{1,3}(?:[,' ]\d{3})+(?![\d])|(?<![\d.,])\d{1,3}(?:\.\d{3}){2,}(?!\d)"
    r"|\d+\.\d+(?!\.?\d)|\d+"
)
_WORDED: Final = "|".join(sorted({*_SMALL, *_TENS, *_SCALES, *_ORDINALS}, key=len, reverse=True))
_SPELLED: Final = re.compile(
    rf"\b(?:{_WORDED})(?:(?:[\s-]+|\s+and\s+)(?:{_WORDED}))*\b", re.IGNORECASE
)


class Quantities(NamedTuple):
    """The numbers and dates of a text.

    Attributes:
        stated: Each as the text has it: ``1991-11-05``, ``1991-11``, ``--11-05``, ``1991``,
            ``3.5``. What can be read in two ways (``05/11/1991``) stands in both.
        implied: These, and what follows from them: a date tells its month and its year.
    """

    stated: frozenset[str] = frozenset()
    implied: frozenset[str] = frozenset()

    def common(self, other: Quantities) -> frozenset[str]:
        """Return what one text states and the other states or implies.

        Two dates of one year have nothing in common; a date and its bare year do.
        """
        return (self.stated & other.implied) | (self.implied & other.stated)

    def without(self, other: Quantities) -> Quantities:
        """Return what *other* does not state."""
        return Quantities(self.stated - other.stated, self.implied - other.stated)


def quantities(text: str) -> Quantities:
    """Return the numbers and dates of *text*, in digits of any script or in English words.

    Ours; the days and months of the Gregorian calendar, month names in English. Telephone and book
    numbers count as one number, whatever stands between their groups.
    """
    text = _SPELLED.sub(_in_digits, text.translate(_DIGITS))
    stated, implied = set[str](), set[str]()
    for pattern in _DATES:
        text = pattern.sub(lambda found: _date(found, stated, implied), text)
    text = _GROUPED.sub(lambda found: _grouped(found, stated, implied), text)
    stated.update(_canonical(found[0]) for found in _NUMBER.finditer(text))
    return Quantities(frozenset(stated), frozenset(implied | stated))


def is_trivial(quantity: str, *, below: int = 100) -> bool:
    """Return whether *quantity* is a whole number under *below*: such stand in every other text."""
    return quantity.isdigit() and int(quantity) < below


def _date(found: re.Match[str], stated: set[str], implied: set[str]) -> str:
    """Note the readings of a date and return what stays of it in the text: nothing if it is one."""
    years = _years(found.groupdict().get("year"))
    readings = [*_readings(found)]
    if not readings:
        return found[0]
    for month, day in readings:
        if day:
            implied.add(f"--{month:02}-{day:02}")
        for year in years:
            stated.add(f"{year}-{month:02}-{day:02}" if day else f"{year}-{month:02}")
            implied.update((year, f"{year}-{month:02}"))
        if not years:
            stated.add(f"--{month:02}-{day:02}")
    return " "


def _years(written: str | None) -> tuple[str, ...]:
    if written is None:
        return ()
    return (written,) if len(written) == 4 else (f"19{written}", f"20{written}")


def _readings(found: re.Match[str]) -> Iterator[tuple[int, int]]:
    """Yield month and day of a date, 0 for no day; one in figures may be read in two ways."""
    named = found.groupdict()
    month, day = found["month"].lower(), int(named.get("day") or 0)
    if not month.isdigit():
        if day <= 31:
            yield _MONTHS[month], day
        return
    one, orders = int(month), {(int(month), day)}
    if found.start("year") > found.start("month"):
        orders.add((day, one))
    yield from sorted((m, d) for m, d in orders if 1 <= m <= 12 and 1 <= d <= 31)


def _grouped(found: re.Match[str], stated: set[str], implied: set[str]) -> str:
    """Note a number that is written in groups; leave alone what is too short to be one."""
    groups = re.findall(r"\d+", found[0])
    joined = "".join(groups)
    if len(joined) < _LEAST_GROUPED or all(map(_is_year, groups)):
        return found[0]
    stated.add(_whole(joined))
    implied.update(_whole(group) for group in groups if len(group) > 2)
    return " "


def _is_year(group: str) -> bool:
    return len(group) == 4 and group[:2] in {"17", "18", "19", "20"}


def _canonical(number: str) -> str:
    """Return a number without what groups its digits, leading zeros, or zeros behind the point."""
    if re.fullmatch(r"\d+\.\d+", number):
        whole, _, part = number.partition(".")
        part = part.rstrip("0")
        return f"{_whole(whole)}.{part}" if part else _whole(whole)
    return _whole(re.sub(r"\D", "", number))


def _whole(digits: str) -> str:
    return digits.lstrip("0") or "0"


def _in_digits(found: re.Match[str]) -> str:
    """Return a number in words as one in digits; *twenty-first* becomes ``21th``."""
    words = [w for w in re.split(r"[\s-]+", found[0].lower()) if w != "and"]
    numbers, last = _read(words), words[-1]
    return " ".join(map(str, numbers)) + ("th" if last in _ORDINALS else "")


def _read(words: list[str]) -> list[int]:
    """Return the numbers that *words* spell; *nineteen ninety-one* is the year."""
    done, total, part = list[int](), 0, 0
    for word in words:
        if scale := _SCALES.get(word):
            total, part = (total, (part or 1) * scale) if scale == 100 else (
                total + (part or 1) * scale, 0,
            )  # fmt: skip
            continue
        value = _SMALL.get(word, _TENS.get(word, _ORDINALS.get(word, 0)))
        room = 100 if part % 100 == 0 else 10 if part % 10 == 0 and part % 100 > 10 else 0
        if value < room or not part:
            part += value
        elif 10 <= part <= 99 and value >= 10:
            part = part * 100 + value
        else:
            done.append(total + part)
            total, part = 0, value
    return [*done, total + part]


class _Digits(dict[int, str | int]):
    """Decimal digits of every script to ASCII, one for one; filled as it is asked."""

    def __missing__(self, code: int) -> str | int:
        number = digit(chr(code), None) if code > 0x7F else None
        self[code] = code if number is None else str(number)
        return self[code]


_DIGITS: Final = _Digits()
