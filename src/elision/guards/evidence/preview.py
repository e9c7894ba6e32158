"""What a target would meet in a corpus, before it holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from elision.guards.evidence.impact import in_force
from elision.guards.evidence.rates import Rate
from elision.guards.guard import Guard
from elision.guards.phrases.advice import Advice, advise
from elision.guards.phrases.pattern_set import Hit
from elision.guards.targets import ForgetTarget

MAX_EXAMPLES = 20
MAX_COLLISIONS = 100
_WORST = 10
_AROUND = 40
_MASK = "█████"  # of one length, so that it does not tell the phrase's


class Collision(NamedTuple):
    """A phrase that a target already in force has in common with this one.

    Attributes:
        target_id: The other target.
        theirs: Index among its phrases.
        ours: Index among this target's.
        kind: ``same``; ``within`` if ours stands within theirs; ``around`` if theirs does in ours.
    """

    target_id: str
    theirs: int
    ours: int
    kind: Literal["same", "within", "around"]


class Example(NamedTuple):
    """A place in the corpus, every match in it masked.

    Attributes:
        text: Index of the text.
        phrase: Index of the phrase.
        form: The normal form it was found on.
        excerpt: What stands around it.
    """

    text: int
    phrase: int
    form: str
    excerpt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a target would meet in a corpus.

    Attributes:
        blocked: Of the corpus's texts, those that hold a phrase.
        by_phrase: Per phrase that was met: its hits on each normal form.
        texts: Per phrase that was met: the texts that hold it.
        examples: Places, every match masked.
        collisions: Phrases shared with targets in force.
        warnings: See `advise`.
    """

    blocked: Rate
    by_phrase: Mapping[int, Mapping[str, int]]
    texts: Mapping[int, int]
    examples: tuple[Example, ...] = field(repr=False)
    collisions: tuple[Collision, ...]
    warnings: tuple[Advice, ...]

    @property
    def n_hits(self) -> int:
        """Hits of all phrases together."""
        return sum(sum(forms.values()) for forms in self.by_phrase.values())

    def to_body(self, *, examples: bool) -> dict[str, Any]:
        """Return the preview as the wire writes it; *examples* are for operators only."""
        by_form: Counter[str] = Counter()
        for forms in self.by_phrase.values():
            by_form.update(forms)
        body: dict[str, Any] = {
            "blocked": self.blocked.to_body(),
            "n_hits": self.n_hits,
            "by_form": dict(by_form),
            "by_phrase": [self._row(phrase) for phrase in sorted(self.by_phrase)],
            "most_blocked": [
                {"phrase": phrase, **Rate(n, self.blocked.n).to_body()}
                for phrase, n in sorted(self.texts.items(), key=lambda item: -item[1])[:_WORST]
            ],
            "collisions": [collision._asdict() for collision in self.collisions],
            "warnings": [*self.warnings],
        }
        return body | ({"examples": [e._asdict() for e in self.examples]} if examples else {})

    def _row(self, phrase: int) -> dict[str, Any]:
        forms = self.by_phrase[phrase]
        counted = {"hits": sum(forms.values()), "texts": self.texts[phrase]}
        return {"phrase": phrase, **counted, "by_form": dict(forms)}


def preview(
    target: ForgetTarget, corpus: Sequence[str], *, active: Iterable[ForgetTarget] = ()
) -> Preview:
    """Scan *corpus* for *target* with the guard that its activation would compile.

    Args:
        target: In whatever state.
        corpus: Texts as they are sent or answered; ordinary ones tell what would be lost.
        active: The targets in force, to be compared with; this target itself is left out.
    """
    guard = Guard.compile([in_force(target)])
    by_phrase: dict[int, Counter[str]] = {}
    texts: Counter[int] = Counter()
    examples: list[Example] = []
    n_blocked = 0
    for index, text in enumerate(corpus):
        hits = guard.scan(text)
        n_blocked += bool(hits)
        for hit in hits:
            by_phrase.setdefault(hit.phrase, Counter())[hit.form] += 1
        texts.update({hit.phrase for hit in hits})
        room = MAX_EXAMPLES - len(examples)
        examples += [_example(index, text, hit, hits) for hit in hits[:room]]
    others = [other for other in active if other.id != target.id]
    return Preview(
        blocked=Rate(n_blocked, len(corpus)),
        by_phrase=by_phrase,
        texts=texts,
        examples=tuple(examples),
        collisions=collisions(target, others),
        warnings=advise(target),
    )


def collisions(target: ForgetTarget, others: Iterable[ForgetTarget]) -> tuple[Collision, ...]:
    """Return the phrases that *target* shares with *others*, at most `MAX_COLLISIONS`."""
    others = [in_force(other) for other in others]
    guard, their_guard = Guard.compile([in_force(target)]), Guard.compile(others)
    around = {
        (hit.target_id, hit.phrase, ours)
        for ours, phrase in enumerate(target.phrases)
        for hit in their_guard.scan(phrase.text)
    }
    within = {
        (other.id, theirs, hit.phrase)
        for other in others
        for theirs, phrase in enumerate(other.phrases)
        for hit in guard.scan(phrase.text)
    }
    found = [Collision(*pair, kind="same") for pair in around & within]
    found += [Collision(*pair, kind="within") for pair in within - around]
    found += [Collision(*pair, kind="around") for pair in around - within]
    return tuple(sorted(found)[:MAX_COLLISIONS])


def _example(index: int, text: str, hit: Hit, hits: Sequence[Hit]) -> Example:
    low, high = max(0, hit.start - _AROUND), min(len(text), hit.end + _AROUND)
    # A match that the window cuts is masked too: its spans are clipped to the window.
    spans = sorted((max(low, h.start), min(high, h.end)) for h in hits if h.end > low)
    parts, at = [], low
    for start, end in spans:
        if start >= high or end <= at:
            continue
        if start >= at:
            parts += [text[at:start], _MASK]
        at = end
    return Example(index, hit.phrase, hit.form, "".join([*parts, text[at:high]]))
