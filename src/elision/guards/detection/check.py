"""Checks a finished text against everything registered: all canonical levels, all decoders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from elision.guards.detection.decoders import CERTAIN, decode
from elision.guards.detection.decoding import Decoded, Decoder
from elision.guards.detection.decoding.concealment import quoted
from elision.guards.detection.forms import Forms
from elision.guards.detection.subjects import Subject, What, subjects
from elision.guards.detection.turns import readings_across, text_of
from elision.guards.targets import Action, ForgetTarget

Verdict: TypeAlias = Literal["allow", "redact", "rewind", "refuse"]
"""What the guard would do; in order of strictness."""

MOST_HITS: Final = 16
"""Places that are reported of one phrase or name; there may be more."""
_VERDICTS: Final[dict[Action, Verdict]] = {
    "observe": "allow", "redact": "redact", "restrict": "rewind", "refuse": "refuse",
}  # fmt: skip
_STRICTNESS: Final[Mapping[Verdict, int]] = {"allow": 0, "redact": 1, "rewind": 2, "refuse": 3}
_WEAK_LETTERS: Final = range(4, 6)
"""Of a phrase that counts at L3 and in loose decodings only if its target is found otherwise."""
_LONGEST_LOOSE: Final = 1_000
"""Characters up to which a loose decoding is looked at as closely as a text."""
_ACROSS: Final[Mapping[str, Sequence[Decoder]]] = {
    "turns": (*CERTAIN, quoted), "last lines": CERTAIN,
}  # fmt: skip
"""Decoders that are tried on several turns read as one text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckHit:
    """A phrase or a name found, by reference only.

    Attributes:
        target_id: Whose it is.
        what: Whether it is one of the target's phrases or one of its names.
        phrase: Its index among these.
        level: How it was found: ``L0`` to ``L3``, a turn (``rot13``, ``reversed``, ``scrambled``,
            ``alias`` ...), or decoders and what was found in what they say: ``base64>L2``.
        start: First raw character of what was matched or decoded.
        end: One past the last.
        action: What its target does about phrases.
        message: Index of the message that *start* and *end* refer to, of several the last; None if
            a text was checked.
    """

    target_id: str
    what: What
    phrase: int
    level: str
    start: int
    end: int
    action: Action
    message: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What a check says of a text.

    Attributes:
        verdict: The strictest thing that a phrase found calls for. Names call for nothing, nor do
            soft phrases and targets that only observe.
        hits: What was found, in order of appearance.
        covered: Whether all of the text was decoded; if not, a text hidden in it may be missed.
    """

    verdict: Verdict
    hits: tuple[CheckHit, ...]
    covered: bool

    def to_body(self) -> dict[str, Any]:
        """Return the result as the wire writes it."""
        hits = [asdict(hit) for hit in self.hits]
        return {"verdict": self.verdict, "hits": hits, "covered": self.covered}


class _Finding(NamedTuple):
    """A subject in a text, or in what it says by way of a decoder."""

    subject: Subject
    level: str
    start: int
    end: int
    weak: bool


class Checker:
    """All phrases and names of the active targets, in every form. Immutable; made by `compile`.

    Its view of a text is that of a reader with all the time in the world: it sees the whole,
    decodes it, and decodes what that says. It generates and enforces nothing.

    Args:
        forms: What to look for.
    """

    def __init__(self, forms: Forms) -> None:
        self._forms = forms

    @classmethod
    def compile(cls, targets: Iterable[ForgetTarget]) -> Checker:
        """Compile the active ones of *targets*; 10,000 phrases take about a second.

        Raises:
            TargetError: If a phrase has no letter or digit, or a ``beta`` out of range.
        """
        return cls(Forms(subjects(targets)))

    def check_text(self, text: str) -> CheckResult:
        """Return what stands in *text*."""
        hits = _Hits()
        decoding = decode(text)
        for finding in self._findings(text, decoding.texts):
            hits.add(finding, finding.start, finding.end)
        return hits.result(covered=decoding.covered)

    def check_messages(self, messages: Sequence[Mapping[str, Any]]) -> CheckResult:
        """Return what stands in *messages*, in each by itself and spread over several.

        Over several: over the assistant's turns, over their last lines, over what is quoted in
        them, in the letters of two of them by turns; and over all turns whoever wrote them. A
        message's text is its content and its reasoning, then the arguments of its tool calls, a
        line each.
        """
        texts = [text_of(message) for message in messages]
        hits, covered = _Hits(), True
        for index, text in enumerate(texts):
            decoding = decode(text)
            covered &= decoding.covered
            for finding in self._findings(text, decoding.texts):
                hits.add(finding, finding.start, finding.end, index)
        for how, joined in readings_across(messages, texts) if len(texts) > 1 else ():
            decoding = decode(joined.text, decoders=_ACROSS.get(how, ()))
            covered &= decoding.covered
            for finding in self._findings(joined.text, decoding.texts):
                piece = joined.locate(finding.start, finding.end)
                if piece is not None:
                    crossing = finding._replace(level=f"{how}>{finding.level}")
                    end = piece.start + len(piece.text)
                    hits.add(crossing, piece.start, end, piece.message)
        return hits.result(covered=covered)

    def _findings(self, text: str, decoded: Iterable[Decoded]) -> Iterator[_Finding]:
        """Yield what stands in *text* and in what was *decoded* from it, the plainest first."""
        for subject, level, start, end in self._forms.places(text):
            weak = level == "L3" and subject.n_letters in _WEAK_LETTERS
            yield _Finding(subject, level, start, end, weak)
        for item in decoded:
            thorough = item.certain or len(item.text) <= _LONGEST_LOOSE
            for subject, level, start, end in self._forms.places(item.text, thorough=thorough):
                if not item.certain and subject.n_letters < _WEAK_LETTERS.start:
                    continue
                weak = subject.n_letters in _WEAK_LETTERS and (level == "L3" or not item.certain)
                yield _Finding(subject, f"{item.how}>{level}", *item.raw(start, end), weak)


@dataclass(slots=True)
class _Hits:
    """Collects findings: one hit a place, the plainest level first, at most `MOST_HITS`."""

    _sure: dict[Subject, list[CheckHit]] = field(default_factory=lambda: defaultdict(list))
    _weak: dict[Subject, list[CheckHit]] = field(default_factory=lambda: defaultdict(list))

    def add(self, finding: _Finding, start: int, end: int, message: int | None = None) -> None:
        subject = finding.subject
        known = (self._weak if finding.weak else self._sure)[subject]
        if len(known) == MOST_HITS or any(
            hit.message == message and hit.start < end and start < hit.end for hit in known
        ):
            return
        hit = CheckHit(
            target_id=subject.target_id, what=subject.what, phrase=subject.number,
            level=finding.level, start=start, end=end, action=subject.action, message=message,
        )  # fmt: skip
        known.append(hit)

    def result(self, *, covered: bool) -> CheckResult:
        confirmed = self._sure | self._confirmed()
        hits = (hit for found in confirmed.values() for hit in found)
        return CheckResult(
            verdict=_strictest(_VERDICTS[it.action] for it in confirmed if it.enforced),
            hits=tuple(sorted(hits, key=_order)),
            covered=covered,
        )

    def _confirmed(self) -> dict[Subject, list[CheckHit]]:
        """Return the weak hits whose target has another subject in the text, and no sure hit."""
        both = {*self._sure, *self._weak}
        return {
            subject: hits
            for subject, hits in self._weak.items()
            if subject not in self._sure
            and any(other != subject and other.target_id == subject.target_id for other in both)
        }


def _strictest(calls: Iterable[Verdict]) -> Verdict:
    strictest: Verdict = "allow"
    for call in calls:
        if _STRICTNESS[call] > _STRICTNESS[strictest]:
            strictest = call
    return strictest


def _order(hit: CheckHit) -> tuple[int, int, int, str, str, int]:
    message = -1 if hit.message is None else hit.message
    return message, hit.start, hit.end, hit.target_id, hit.what, hit.phrase


def check(
    targets: Checker | Iterable[ForgetTarget], content: str | Sequence[Mapping[str, Any]]
) -> CheckResult:
    """Return what stands in a text or in a list of messages; nothing is generated.

    Args:
        targets: What to look for; a `Checker` if more than one text is to be checked.
        content: A text, or messages as OpenAI's API writes them.

    Raises:
        TargetError: See `Checker.compile`.
    """
    checker = targets if isinstance(targets, Checker) else Checker.compile(targets)
    if isinstance(content, str):
        return checker.check_text(content)
    return checker.check_messages(content)
