"""What a target looks like to the gate: its probes, its exceptions, its names, its rare words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from elision.guards.phrase import Phrase
from elision.guards.phrases.advice import common_words
from elision.guards.phrases.normal import N
from elision.guards.phrases.pattern_set import PatternSet
from elision.guards.phrases.patterns import Owner
from elision.guards.targets import ForgetTarget

TEMPLATES: Final = ("Who is {}?", "Tell me about {}.")
"""Probes of a target that has only names: the first asks for a person, the second for anything."""
NAME_WEIGHT: Final = 2.0
"""Weight of a name's word in choosing views; a rare word of a probe weighs 1."""
_WORD = re.compile(r"\w+")
_COMMON_SHARE: Final = 0.2


class Asked(NamedTuple):
    """What of one target a prompt is compared with.

    Attributes:
        target_id: Whose it is.
        probes: Texts that ask for it.
        exceptions: Texts that ask for something else.
    """

    target_id: str
    probes: tuple[str, ...]
    exceptions: tuple[str, ...]


def asked(target: ForgetTarget) -> Asked:
    """Return what prompts are compared with: the target's probes, or what stands in for them.

    Without probes its answers are taken: what tells the fact also resembles a question for it
    (guard.md 1.4, AUC .997 against .999). Without either, `TEMPLATES` about its names.
    """
    probes = target.probes or target.answers
    if not probes:
        probes = tuple(template.format(name) for name in target.names for template in TEMPLATES)
    return Asked(target.id, tuple(dict.fromkeys(probes)), tuple(dict.fromkeys(target.exceptions)))


def name_patterns(targets: Sequence[ForgetTarget]) -> PatternSet:
    """Return all names as one pattern set; an owner's ``phrase`` is the target's index.

    A name is found like a phrase is: in any spelling of its normal form, up to eight letters
    between word boundaries only. Names without a letter or digit find nothing.
    """
    return PatternSet(
        (Owner(target.id, index, "observe", allow_echo=False), Phrase(text=name))
        for index, target in enumerate(targets)
        for name in dict.fromkeys(target.names)
        if N(name)
    )


def salience(targets: Iterable[ForgetTarget]) -> dict[str, float]:
    """Return the weights of the words by which to choose among too many views.

    The words, in N, of names and of probes. Common words do not count, nor do those in a fifth
    of all probes.
    """
    names, words, n_probes = set[str](), Counter[str](), 0
    for target in targets:
        names.update(_words(target.names))
        for probe in asked(target).probes:
            n_probes += 1
            words.update(set(_words((probe,))))
    most = max(_COMMON_SHARE * n_probes, 3)
    common = common_words()
    found = {word: 1.0 for word, n in words.items() if n <= most and word not in common}
    return found | {word: NAME_WEIGHT for word in names if word not in common}


def _words(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for match in _WORD.finditer(text):
            if word := N(match[0]):
                yield word
