"""Judges what a caller writes, before a model reads it; only where an operator asks for that.

A phrase guards what is said, not what is asked: a question about a forgotten street is answered
without it. To forbid the question tells the caller that there is something to ask about. Two
operators want it all the same: one whose model is somebody else's, who must not be shown the words,
and one who takes the telling for the smaller harm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from elision.errors import ElisionError, GuardError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from elision.guards.detection.check import Checker, CheckHit, CheckResult
    from elision.middleware.gateway.guardrail.asked import Asked


_ACROSS: Final = ("turns>", "last lines>", "two turns>", "all turns>")
"""How the levels of what stands in several messages begin; see `readings_across`."""


def redacted(asked: Asked, checker: Checker, *, marker: str) -> tuple[str, ...] | None:
    """Return the texts of *asked* with *marker* in the place of phrases; None if that won't do.

    It does not where a phrase stands in what cannot be rewritten, is spread over several messages,
    or is still there afterwards, nor where a text could not be decoded whole.

    Raises:
        GuardError: If the check breaks.
    """
    if any(_is_met(checker, leaf.text) for leaf in asked.leaves):
        return None
    if any(hit.level.startswith(_ACROSS) and _acts(hit) for hit in _across(asked, checker).hits):
        return None
    texts = [_redacted(text, checker, marker) for text in asked.texts]
    known = tuple(text for text in texts if text is not None)
    return known if len(known) == len(texts) else None


def is_met(asked: Asked, checker: Checker) -> bool:
    """Return whether a phrase stands anywhere in *asked*, or may, undecoded.

    Raises:
        GuardError: If the check breaks.
    """
    read = (*asked.texts, *(leaf.text for leaf in asked.leaves))
    return not _allowed(_across(asked, checker)) or any(_is_met(checker, text) for text in read)


def _across(asked: Asked, checker: Checker) -> CheckResult:
    return _whole(lambda: checker.check_messages(asked.messages))


def _is_met(checker: Checker, text: str) -> bool:
    return not _allowed(_whole(lambda: checker.check_text(text)))


def _allowed(found: CheckResult) -> bool:
    return found.verdict == "allow" and found.covered


def _redacted(text: str, checker: Checker, marker: str) -> str | None:
    found = _whole(lambda: checker.check_text(text))
    if _allowed(found):
        return text
    changed = _without(text, found.hits, marker)
    return None if _is_met(checker, changed) else changed


def _without(text: str, hits: Iterable[CheckHit], marker: str) -> str:
    """Return *text* with *marker* in the place of phrases that are not merely observed."""
    parts, at = [], 0
    for start, end in sorted((hit.start, hit.end) for hit in hits if _acts(hit)):
        if start >= at:
            parts += [text[at:start], marker]
        at = max(at, end)
    return "".join([*parts, text[at:]])


def _acts(hit: CheckHit) -> bool:
    return hit.what == "phrase" and hit.action != "observe"


def _whole(check: Callable[[], CheckResult]) -> CheckResult:
    try:
        return check()
    except ElisionError:
        raise
    except Exception as exc:  # whatever broke, nothing passes a broken guard
        raise GuardError(f"the check of a prompt broke ({type(exc).__name__})") from exc
