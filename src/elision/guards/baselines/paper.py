"""GUARD as published: gate, retrieved answer, token trie and word likeness, for beam search.

For reproduction; it suppresses less than the default guard and costs more. The defects listed in
guard.md 1.2 are kept out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Any, Final, cast

from elision.contract import ALLOW, Context, Here, Lexicon, Session, Stage
from elision.errors import CapabilityError, ConfigError
from elision.guards.baselines.paper_gate import (
    HiddenModel,
    MlpGate,
    general_questions,
    question_features,
)
from elision.guards.baselines.paper_settings import PRESETS, PaperSettings
from elision.guards.baselines.token_trie import Nodes, TokenTrie
from elision.guards.phrases.advice import common_words
from elision.guards.phrases.normal import N

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from elision.encoders import Encoder
    from elision.guards.targets import ForgetTarget

_WORD: Final = re.compile(r"\w+(?:['’-]\w+)*")


def forbidden(answer: str, target: ForgetTarget) -> tuple[str, ...]:
    """Return what must not be said of *answer*: the target's phrases in it, else its entity words.

    Not its word n-grams: those forbid *the* (guard.md 0.7).
    """
    form = N(answer)
    found = tuple(phrase.text for phrase in target.phrases if N(phrase.text) in form)
    return found or _entity_words(answer)


def _entity_words(answer: str) -> tuple[str, ...]:
    """Return the capitalised words and numbers that are no common words; else the rare words."""
    rare = [word for word in _WORD.findall(answer) if N(word) not in common_words()]
    named = [word for word in rare if not word[0].islower()]
    return tuple(dict.fromkeys(named or rare))


@dataclass(frozen=True, slots=True, kw_only=True)
class Forbidden:
    """What the retrieved answer forbids.

    Attributes:
        trie: Its phrases as tokens.
        vectors: Its phrases as the encoder sees them, shape ``(phrases, dim)``.
    """

    trie: TokenTrie
    vectors: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PaperGuard:
    """Score beams by GUARD. A recipe for the beam decoder; made by `fit`.

    Attributes:
        settings: The constants.
        gate: Tells prompts about the forget set from others.
        answers: The stored answers as the encoder sees them, shape ``(N, dim)``.
        records: What each of them forbids.
        encoder: Embeds prompts and words.
        tenant: Whose cache it uses.
        hidden: The prompt's mean hidden state, shape ``(D,)``; None until it has been seen.
    """

    settings: PaperSettings
    gate: MlpGate
    answers: NDArray[np.float32]
    records: tuple[Forbidden, ...]
    encoder: Encoder
    tenant: str
    hidden: Tensor | None = None
    rank: int = 0
    stage = Stage.PENALTY

    @classmethod
    def fit(
        cls,
        model: HiddenModel,
        targets: Iterable[ForgetTarget],
        *,
        encoder: Encoder,
        negatives: Sequence[str] = (),
        seed: int = 0,
        settings: PaperSettings = PRESETS["paper-tofu"],
        tenant: str = "default",
    ) -> PaperGuard:
        """Fit the gate and store the answers of the active ones of *targets*.

        Runs the model once per question, so call it on the thread that owns the model, or before
        an engine does.

        Args:
            model: The model to be guarded.
            targets: Their probes are what the gate opens for, their answers what is retrieved.
            encoder: Embeds answers, prompts and words.
            negatives: Prompts that the gate must stay closed for; general questions are added.
            seed: Of the gate.
            settings: The constants; see `PRESETS`.
            tenant: Whose targets they are.

        Raises:
            ConfigError: If the targets have no probe or no answer that forbids anything.
            CapabilityError: If the model hands out no hidden states.
        """
        active = [target for target in targets if target.state == "active"]
        probes = [probe for target in active for probe in target.probes]
        pairs = [(a, f) for t in active for a in t.answers if (f := forbidden(a, t))]
        if not probes or not pairs:
            raise ConfigError(
                f"guard-paper has {len(probes)} probes and {len(pairs)} answers to go by; "
                "register both"
            )
        gate = MlpGate.fit(
            question_features(model, probes),
            question_features(model, [*negatives, *general_questions()]),
            seed=seed,
        )
        return cls(
            settings=settings,
            gate=gate,
            answers=encoder.embed([answer for answer, _ in pairs], tenant=tenant).result(),
            records=tuple(_record(model, phrases, encoder, tenant) for _, phrases in pairs),
            encoder=encoder,
            tenant=tenant,
        )

    def __repr__(self) -> str:
        return f"PaperGuard({self.settings!r}, {len(self.records)} answers)"

    @property
    def width(self) -> int:
        """Beams wanted."""
        return self.settings.width

    def acts(self) -> bool:
        """Return whether the gate is open for the prompt that has been seen; see `openness`."""
        return self.openness() > self.settings.tau

    def openness(self) -> float:
        """Return the gate's probability that the prompt is about the forget set.

        Raises:
            CapabilityError: If no prompt has been seen: only the beam decoder shows it.
        """
        if self.hidden is None:
            raise CapabilityError("guard-paper", engine="this engine", missing="HIDDEN")
        return self.gate.probability(self.hidden)

    def seeing(self, hidden: Tensor) -> PaperGuard:
        """Return the guard that knows the prompt's mean hidden state, shape ``(D,)``."""
        return replace(self, hidden=hidden)

    def begin(self, context: Context) -> PaperSession:
        """Open a session for one reply, under the answer that is nearest to the prompt.

        Raises:
            CapabilityError: See `openness`; a guard that cannot see must not look like one.
        """
        if not self.acts():
            return PaperSession(context.lexicon, None)
        asked = self.encoder.embed([context.user_text or context.before], tenant=self.tenant)
        nearest = int((self.answers @ asked.result()[0]).argmax())
        return PaperSession(context.lexicon, self.records[nearest])

    def penalties(
        self, sessions: Sequence[Session], candidates: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        r"""Return :math:`P_{tok} + P_{sem}` of every candidate of every beam, in nats.

        With r the share of a phrase that the tokens end in, and s the greatest cosine of the last
        word and a phrase: infinite if r >= beta or s >= delta, else s. A candidate that writes no
        letter or digit has no word to be compared; a cosine below 0 counts as 0.

        Args:
            sessions: One per beam.
            candidates: Tokens per beam.

        Source:
            GUARD, arXiv:2505.13312, by guard.md 1.2, step 3.
        """
        beams = cast("Sequence[PaperSession]", sessions)
        nexts = [
            [beam.advance(token) for token in tokens]
            for beam, tokens in zip(beams, candidates, strict=True)
        ]
        words = sorted({n.word for row in nexts for n in row if n.record and n.word})
        vectors: dict[str, Any] = {}
        if words:
            found = self.encoder.embed(words, tenant=self.tenant).result()
            vectors = dict(zip(words, found, strict=True))
        return [[self._penalty(n, vectors) for n in row] for row in nexts]

    def _penalty(self, after: PaperSession, vectors: Mapping[str, Any]) -> float:
        record = after.record
        if record is None:
            return 0.0
        if record.trie.ratio(after.nodes) >= self.settings.beta:
            return inf
        if not after.word:
            return 0.0
        likeness = float((record.vectors @ vectors[after.word]).max())
        return inf if likeness >= self.settings.delta else max(0.0, likeness)


@dataclass(frozen=True, slots=True)
class PaperSession:
    """One beam's place in the trie and in its last word; an immutable value.

    Attributes:
        lexicon: What each token writes.
        record: What the retrieved answer forbids; None where the gate is closed.
        nodes: See `TokenTrie`.
        tail: What is written of the word that may go on.
        word: The last word so far, if the last token wrote a letter or digit; else empty.
        pending: Bytes that wait for the rest of their character.
    """

    lexicon: Lexicon
    record: Forbidden | None
    nodes: Nodes = ()
    tail: str = ""
    word: str = ""
    pending: bytes = b""
    held = 0
    verdict = ALLOW

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        """Return the very same scores: candidates are penalised, not rows."""
        return logits

    def advance(self, token: int) -> PaperSession:
        """Return the session after *token*."""
        text, pending = self.lexicon.write(self.pending, token)
        nodes = () if self.record is None else self.record.trie.advance(self.nodes, token)
        written = self.tail + text
        last = (written.split() or [""])[-1]
        found = _WORD.findall(last) if any(map(str.isalnum, text)) else []
        tail = "" if written[-1:].isspace() else last
        return PaperSession(
            self.lexicon, self.record, nodes, tail, found[-1] if found else "", pending
        )

    def finish(self) -> PaperSession:
        """Return the very same session."""
        return self


def _record(model: HiddenModel, phrases: Sequence[str], encoder: Encoder, tenant: str) -> Forbidden:
    def tokenize(texts: list[str]) -> list[list[int]]:
        return cast(
            "list[list[int]]", model.tokenizer(texts, add_special_tokens=False)["input_ids"]
        )

    vectors = encoder.embed(list(phrases), tenant=tenant).result()
    return Forbidden(trie=TokenTrie(phrases, tokenize), vectors=vectors)
