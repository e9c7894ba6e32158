"""What an upstream can keep out of a reply itself, so that less has to be taken back.

Only a trusted upstream is told, for it learns the phrases; only phrases that restrict are pushed
down, for the others are to show. What comes back is guarded all the same. A bias on single tokens
is not used: it would hold everywhere in the reply, and first tokens of names are common words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from elision.contract import Engine, Plan

if TYPE_CHECKING:
    from elision.middleware.enforcement import Enforcement

MOST_PUSHED: Final = 128


def pushed(plan: Plan, engine: Engine, rules: Enforcement) -> tuple[Plan, int]:
    """Return *plan* with phrases that *engine* is to keep out, and how many those are."""
    offers = getattr(engine, "offers", None)
    if plan.masks is not None:  # they forbid the same, in every spelling
        return plan, 0
    if not (getattr(engine, "trusted", False) and getattr(offers, "bad_words", False)):
        return plan, 0
    words = sorted(set(_phrases(rules)))[:MOST_PUSHED]
    if not words:
        return plan, 0
    given = plan.request.extra.get("bad_words")
    own = [*given] if isinstance(given, list | tuple) else []
    extra = {**plan.request.extra, "bad_words": [*own, *words]}
    return replace(plan, request=replace(plan.request, extra=extra)), len(words)


def _phrases(rules: Enforcement) -> Iterator[str]:
    """Yield what restricts, whoever asks; vLLM itself adds the forms behind a space."""
    for target in rules.targets:
        if target.state == "active" and target.action == "restrict":
            for phrase in target.phrases:
                if phrase.mode == "hard" and not phrase.allow_echo and phrase.text.strip():
                    yield phrase.text.strip()
