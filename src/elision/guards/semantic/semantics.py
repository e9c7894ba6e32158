"""What must not be said in other words: a tenant's answers and entity words, ready to compare.

Nothing is embedded at compilation: a target's answers are, once the gate first suspects it. Ten
thousand targets therefore compile in the time it takes to list them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final, NamedTuple

from elision.errors import ElisionError, GuardError
from elision.guards.phrases.advice import common_words
from elision.guards.phrases.normal import SEP, N, N_b
from elision.guards.phrases.recent import Recent
from elision.guards.semantic.policy import SemanticPolicy
from elision.guards.semantic.quantities import Quantities, quantities
from elision.guards.semantic.sentences import plain, sentences, views, words
from elision.guards.targets import Action, ForgetTarget

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from elision.encoders import Encoder

    Vectors = NDArray[np.float32]

BARE_WORDS: Final = 3
"""Answers of at most so many words (*male*, *2002*) are also looked for as they stand."""
N_FUNCTION_WORDS: Final = 150
"""The commonest words of a text about anything: never judged, never an answer by themselves."""


class Answer(NamedTuple):
    """One answer of a target.

    Attributes:
        rows: Its rows among the target's vectors: the whole, its sentences, its windows.
        quantities: Its numbers and dates.
        bare: Its normal form between separators, if it is short enough to be looked for; or empty.
    """

    rows: slice
    quantities: Quantities
    bare: str


@dataclass(frozen=True, slots=True)
class Subject:
    """A target as the semantic layer compares with it. Its ``repr`` tells its id alone.

    Attributes:
        target_id: Whose it is.
        action: What the target asks for.
        by_word: Whether single words are judged: not for topics.
        answers: See `Answer`.
        vectors: Of the answers, unit rows, shape ``(rows, dim)``.
        entities: Of its entity words, likewise.
    """

    target_id: str
    action: Action
    by_word: bool
    answers: tuple[Answer, ...]
    vectors: Vectors
    entities: Vectors

    def __repr__(self) -> str:
        return f"Subject({self.target_id!r})"


class Semantics:
    """The answers and entity words of a tenant's active targets. Shared between threads.

    Args:
        targets: By id.
        encoder: See `Encoder`.
        tenant: Whose they are.
        policy: See `SemanticPolicy`.

    Attributes:
        policy: Likewise.
    """

    def __init__(
        self,
        targets: Mapping[str, ForgetTarget],
        encoder: Encoder,
        *,
        tenant: str,
        policy: SemanticPolicy,
    ) -> None:
        self._targets = targets
        self._encoder = encoder
        self._tenant = tenant
        self._begun = Recent["str", "_Draft"](entries=1024, limit_bytes=256 << 20)
        self.policy = policy

    @classmethod
    def compile(
        cls,
        targets: Iterable[ForgetTarget],
        encoder: Encoder,
        *,
        tenant: str,
        policy: SemanticPolicy | None = None,
    ) -> Semantics:
        """Take in the active ones of *targets*."""
        active = {target.id: target for target in targets if target.state == "active"}
        return cls(active, encoder, tenant=tenant, policy=policy or SemanticPolicy())

    def __repr__(self) -> str:
        return f"Semantics({len(self._targets)} targets)"

    def __contains__(self, target_id: object) -> bool:
        return target_id in self._targets

    def ids(self) -> tuple[str, ...]:
        """Return every target that has something to compare with."""
        return tuple(t.id for t in self._targets.values() if t.answers or t.phrases)

    def action(self, target_id: str) -> Action:
        """Return what a target asks for.

        Raises:
            GuardError: If there is no such target: gate and semantic layer are out of step.
        """
        target = self._targets.get(target_id)
        if target is None:
            raise GuardError(f"the gate suspects {target_id!r}, which was not compiled with it")
        return target.action

    def prefetch(self, target_ids: Iterable[str]) -> None:
        """Have the vectors of these targets made, without waiting for them."""
        for target_id in target_ids:
            if target_id in self._targets:
                self._draft(target_id)

    def subjects(self, target_ids: Iterable[str]) -> tuple[Subject, ...]:
        """Return these targets, those left out that have nothing to compare with.

        Waits for the vectors that nobody asked for before.

        Raises:
            GuardError: If the encoder breaks or takes too long, or a target is unknown.
        """
        drafts = [self._draft(target_id) for target_id in target_ids if self.action(target_id)]
        found = (draft.subject(self.policy.timeout_s) for draft in drafts if draft.texts)
        return tuple(found)

    def embed(self, texts: list[str]) -> Vectors:
        """Return the unit vectors of *texts*, shape ``(len(texts), dim)``.

        Raises:
            GuardError: If the encoder breaks or takes too long.
        """
        return settled(self._asked(texts), self.policy.timeout_s)

    def _asked(self, texts: list[str]) -> Future[Vectors]:
        try:
            return self._encoder.embed(texts, tenant=self._tenant)
        except Exception as error:  # whatever broke, nothing passes a broken guard
            raise broken(error) from _kept(error)

    def _draft(self, target_id: str) -> _Draft:
        draft = self._begun.get(target_id)
        if draft is None or draft.failed:
            draft = _Draft(self._targets[target_id])
            if draft.texts:
                draft.vectors = self._asked(draft.texts)
            self._begun.put(target_id, draft, n_bytes=2048 * len(draft.texts))
        return draft


class _Draft:
    """A target whose vectors are being made."""

    def __init__(self, target: ForgetTarget) -> None:
        self.target = target
        self.texts: list[str] = []
        self.answers = tuple(map(self._answer, target.answers))
        self.n_rows = len(self.texts)
        self.by_word = target.kind != "topic"
        self.texts += dict.fromkeys(_entities(target)) if self.by_word else ()
        self.vectors: Future[Vectors] | None = None
        self._subject: Subject | None = None

    def _answer(self, text: str) -> Answer:
        start = len(self.texts)
        parts = [*sentences(text)]
        shown = [plain(text), *(map(plain, parts) if len(parts) > 1 else ())]
        self.texts += dict.fromkeys(view for part in shown for view in views(part))
        return Answer(slice(start, len(self.texts)), quantities(plain(text)), _bare(text))

    @property
    def failed(self) -> bool:
        made = self.vectors
        return made is not None and made.done() and (made.cancelled() or bool(made.exception()))

    def subject(self, timeout_s: float) -> Subject:
        if self._subject is None:
            assert self.vectors is not None
            made, target = settled(self.vectors, timeout_s), self.target
            self._subject = Subject(
                target.id,
                target.action,
                self.by_word,
                self.answers,
                made[: self.n_rows],
                made[self.n_rows :],
            )
        return self._subject


def settled(future: Future[Vectors], timeout_s: float) -> Vectors:
    """Return what *future* comes to.

    Raises:
        GuardError: If it fails or takes longer than *timeout_s* seconds.
    """
    try:
        return future.result(timeout_s)
    except Exception as error:  # whatever broke, nothing passes a broken guard
        raise broken(error) from _kept(error)


def broken(error: Exception) -> GuardError:
    """Return the error that ends an answer whose guard broke; it names the failure's kind alone."""
    return GuardError(f"the semantic layer broke ({type(error).__name__}); the answer was stopped")


def _kept(error: Exception) -> Exception | None:
    """Return *error* as a cause to be kept: those of others may quote what they were given."""
    return error if isinstance(error, ElisionError) else None


@lru_cache(maxsize=1)
def function_words() -> frozenset[str]:
    """Return the normal forms of the commonest English words."""
    lines = (
        files("elision.guards.phrases").joinpath("common_words.txt").read_text("utf-8").splitlines()
    )
    ranked = [N(line) for line in lines if not line.startswith("#")]
    return frozenset(ranked[:N_FUNCTION_WORDS])


def _entities(target: ForgetTarget) -> Iterator[str]:
    """Yield the words of the hard phrases that are not ordinary English, nor numbers."""
    for phrase in target.phrases:
        for word in words(plain(phrase.text)) if phrase.mode == "hard" else ():
            form = N(word)
            if form and not form.isdigit() and form not in common_words():
                yield word.lower()


def _bare(answer: str) -> str:
    """Return the form in which a short answer is looked for; nothing of a longer one."""
    forms = [N(word) for word in words(plain(answer))]
    telling = [
        f for f in forms if f and f not in function_words() and not (f.isdigit() and len(f) < 2)
    ]
    if not telling or len(forms) > BARE_WORDS:
        return ""
    return SEP + N_b(plain(answer)).strip(SEP) + SEP
