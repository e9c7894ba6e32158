"""The compiled guard: all of a tenant's active phrases, ready for any engine."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING

from elision.guards.phrases.holdback import REDACTED, HoldBack
from elision.guards.phrases.mask import PhraseMask, PhrasePenalty
from elision.guards.phrases.pattern_set import Hit, PatternSet
from elision.guards.phrases.patterns import Owner, owned
from elision.guards.phrases.product import PRODUCT_BYTES, Product
from elision.guards.phrases.watch import PhraseCount, PhraseWatch
from elision.guards.targets import ForgetTarget, Phrase

if TYPE_CHECKING:
    from elision.contract import Epoch, Lexicon, Recipe


class Guard:
    """Every active phrase of one tenant at one epoch. Immutable; made by `compile`.

    Attributes:
        epoch: The tenant's epoch that the targets belong to.
        marker: What stands in the place of a redacted span.
        n_targets: Active targets.
        n_phrases: Their phrases.
        masked: Phrases that cannot be completed: hard, of targets that restrict.
        acting: Phrases that are acted upon once written: hard, of targets that redact or refuse.
        soft: Phrases made unlikely. Where there are no scores to lower, nothing is done about them.
        observed: Phrases that are only counted.
    """

    def __init__(
        self,
        targets: Iterable[ForgetTarget],
        *,
        epoch: Epoch,
        marker: str,
        product_bytes: int = PRODUCT_BYTES,
    ) -> None:
        active = [target for target in targets if target.state == "active"]
        self._owned = tuple(owned(active))
        self.epoch = epoch
        self.marker = marker
        self._product_bytes = product_bytes
        self.n_targets = len(active)
        self.n_phrases = len(self._owned)
        self.masked = self._role("masked")
        self.acting = self._role("acting")
        self.soft = self._role("soft")
        self.observed = self._role("observed")
        self._spoken = self.masked if not self.acting else self.acting
        if self.masked and self.acting:
            self._spoken = self._role("masked", "acting")
        self._recipes: list[tuple[Lexicon, tuple[Recipe, ...]]] = []
        self._lock = Lock()

    @classmethod
    def compile(
        cls,
        targets: Iterable[ForgetTarget],
        *,
        epoch: Epoch = 0,
        marker: str = REDACTED,
        product_bytes: int = PRODUCT_BYTES,
    ) -> Guard:
        """Compile the active ones of *targets*; 10,000 phrases take a good part of a second.

        Args:
            targets: A tenant's.
            epoch: The tenant's epoch that they belong to.
            marker: What stands in the place of a redacted span.
            product_bytes: What each of its products with a vocabulary may remember.

        Raises:
            TargetError: If a phrase has no letter or digit, or a ``beta`` out of range.
        """
        guard = cls(targets, epoch=epoch, marker=marker, product_bytes=product_bytes)
        _ = guard._spoken.start, guard._spoken.plain  # here, not on the first request's event loop
        return guard

    def __repr__(self) -> str:
        return f"Guard(epoch={self.epoch}, {self.n_targets} targets, {self.n_phrases} phrases)"

    def _role(self, *roles: str) -> PatternSet:
        return PatternSet(pair for pair in self._owned if _role_of(*pair) in roles)

    def recipes(self, lexicon: Lexicon) -> tuple[Recipe, ...]:
        """Return what enforces the phrases on an engine with logits; nothing if there are none.

        The product with the vocabulary is made at the first call per lexicon and kept for the last
        few lexicons.
        """
        with self._lock:
            for known, recipes in self._recipes:
                if known is lexicon:
                    return recipes
            recipes = self._make_recipes(lexicon)
            self._recipes = [(lexicon, recipes), *self._recipes[:3]]
            return recipes

    def _make_recipes(self, lexicon: Lexicon) -> tuple[Recipe, ...]:
        found: list[Recipe] = []
        if self.observed:
            found.append(PhraseCount(patterns=self.observed))
        if self.soft:
            found.append(PhrasePenalty(product=self._product(self.soft, lexicon)))
        if self.masked:
            found.append(PhraseMask(product=self._product(self.masked, lexicon)))
        if self.acting:
            watch = PhraseWatch(product=self._product(self.acting, lexicon), marker=self.marker)
            found.append(watch)
        return tuple(found)

    def _product(self, patterns: PatternSet, lexicon: Lexicon) -> Product:
        return Product(patterns, lexicon, limit_bytes=self._product_bytes)

    def holdback(self, *, user_text: str = "", before: str = "", json: bool = False) -> HoldBack:
        """Return a guard for one stream of text from an engine without logits.

        Args:
            user_text: The caller's own words, for phrases that allow echo.
            before: The text that the reply continues.
            json: Whether the stream is JSON source, such as a tool call's arguments.
        """
        return HoldBack(
            self._spoken,
            excluded=self._spoken.echoed(user_text),
            before=before,
            json=json,
            marker=self.marker,
        )

    def scan(self, text: str) -> tuple[Hit, ...]:
        """Return every phrase in *text*, whatever its mode and action, in order of appearance."""
        return self._every.hits(text)

    def hides(self, text: str) -> bool:
        """Return whether *text* holds a phrase that must not leave; echo is not considered."""
        return self._spoken.finds(text)

    @cached_property
    def _every(self) -> PatternSet:
        return PatternSet(self._owned)


def _role_of(owner: Owner, phrase: Phrase) -> str:
    if owner.action == "observe":
        return "observed"
    if phrase.mode == "soft":
        return "soft"
    return "masked" if owner.action == "restrict" else "acting"
