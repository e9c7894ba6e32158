"""What belongs to one case only: dates, numbered cases, files, addresses, and the answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from elision.agents.atlas.sensitive import EMAIL
from elision.guards.phrases.normal import SEP, N, N_b

RUN: Final = 12
"""Characters of an answer that advice must not hold in a row (atlas_memory.md 2.10)."""
_WHOLE: Final = 6
"""Letters and digits from which an answer is found inside longer words too."""
_MONTH: Final = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?"
    r"|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
_EXTENSION: Final = (
    r"(?:exe|dll|bat|cmd|ps1|sh|py|js|ts|java|c|cpp|h|rs|go|rb|php|html?|css|json|ya?ml|toml|xml"
    r"|csv"
    r"|tsv|txt|md|log|docx?|xlsx?|pptx?|pdf|zip|gz|tar|7z|rar|iso|db|sqlite|sql|png|jpe?g|gif"
    r"|mp[34]"
    r"|cfg|conf|ini|env|pem|key|tmp|bak|lnk|vbs|hta|jar|apk|msi|parquet|ipynb)"
)
_ONE_CASE: Final = re.compile(
    # Dates and times of day
    r"\b\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\b\d{1,2}[-/.]\d{1,2}[-/.](?:19|20)?\d{2}\b"
    r"|\b\d{1,2}:\d{2}:\d{2}\b"
    rf"|\b\d{{1,2}}(?:st|nd|rd|th)?(?: of)? {_MONTH} \d{{4}}|\b{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?\b"
    rf"|\b\d{{1,2}}(?:st|nd|rd|th)?(?: of)? {_MONTH}(?!\w)|\b{_MONTH} (?:19|20)\d{{2}}\b"
    # Cases by their number
    r"|\b(?:incident|case|ticket|alert|issue|order|invoice|postmortem|request|session|episode"
    r"|account)"
    r"s? ?(?:#|no\.?|number|id|:)* ?#?[a-z]{0,4}-?\d{1,}\b|(?<!\w)#\d+|\b[A-Z]{2,10}-\d{2,}\b"
    # Identifiers: GUID, SID, hash, long number, address of a machine
    r"|\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b|\bs-1-\d+(?:-\d+)+|\b0x[0-9a-f]{6,}\b"
    r"|\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{8,}\b|(?<![\d.])\d{6,}(?![\d.])"
    r"|\b(?:\d{1,3}\.){3}\d{1,3}\b|\b(?:[0-9a-f]{1,4}:){4,}[0-9a-f:]{1,}"
    r"|(?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2}"
    # Files and links
    rf"|\b[\w-]+\.{_EXTENSION}\b(?!\()|\b[a-z]:\\|(?<!\w)(?:~|\.{{1,2}})?(?:/[\w.@+-]+){{2,}}"
    rf"|\\\\[\w.-]+\\"
    r"|\bhttps?://",
    re.IGNORECASE,
)


def is_of_one_case(text: str) -> bool:
    """Return whether *text* names a date, a numbered case, an identifier, a file or an address."""
    return _ONE_CASE.search(text) is not None or EMAIL.search(text) is not None


def leaks(text: str, answer: str, task: str) -> bool:
    r"""Return whether *text* gives away *answer*, so that remembering it would be remembering that.

    It does if it holds the answer as a phrase of its own; or any `RUN` characters of it in a row
    that the task does not hold. Case, accents, look-alikes, white space and marks between letters
    do not matter. An answer of one or two characters that is a word of the task (``B``, ``no``)
    gives nothing away.

    Args:
        text: All that an entry says.
        answer: The ground truth.
        task: What was asked; not what was observed, which may hold the answer.
    """
    bare = N(answer)
    if not bare:
        return bool(answer.strip()) and _folded(answer) in _folded(text)
    if len(bare) <= 2 and _is_phrase(answer, task):
        return False
    if _is_phrase(answer, text) or (len(bare) >= _WHOLE and bare in N(text)):
        return True
    return any(
        run in said and run not in asked
        for form, said, asked in (
            (bare, N(text), N(task)),
            (_folded(answer), _folded(text), _folded(task)),
        )
        for run in _runs(form)
    )


def _is_phrase(phrase: str, text: str) -> bool:
    return f"{SEP}{N_b(phrase).strip(SEP)}{SEP}" in f"{SEP}{N_b(text).strip(SEP)}{SEP}"


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _runs(text: str) -> Iterator[str]:
    return (text[at : at + RUN] for at in range(len(text) - RUN + 1))


def words(text: str) -> Iterator[str]:
    """Yield the words of *text*, case folded, that name nothing of one case."""
    spans = [match.span() for match in _ONE_CASE.finditer(text)]
    ends = [(0, 0), *spans, (len(text), len(text))]
    for (_, start), (end, _) in pairwise(ends):
        yield from re.findall(r"[^\W\d_][\w-]{2,}", text[start:end].casefold())
