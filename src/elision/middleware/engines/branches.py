"""Branches: other scores for the positions that several walks have come to, in few forwards.

What every position of a reply needs is scored together with the reply's own row: the same roots and
drafts, behind another prompt or by another model. What only some need is fetched when a walk stands
on such a position; all walks that wait at the same time share a forward.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

from elision.contract import BranchKey, Suffix
from elision.errors import EngineError
from elision.middleware.engines.cache import is_whole
from elision.middleware.engines.causal import PREFILL_CHUNK, CausalModel
from elision.middleware.engines.ragged import Segment, score_trees
from elision.middleware.speculation.base import NOTHING, Draft
from elision.middleware.speculation.compaction import can_compact, compact, truncate

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import DynamicCache

    from elision.middleware.speculation.walk import Need, Walk


class Host(Protocol):
    """What reads a branch: a model, and what it can score."""

    model: CausalModel

    @property
    def takes_trees(self) -> bool:
        """Whether it scores a tree of tokens as it scores each of its paths."""
        ...

    @property
    def takes_several(self) -> bool:
        """Whether several sequences can share a forward."""
        ...

    def read(self, tokens: tuple[int, ...], cache: DynamicCache) -> tuple[int, Tensor]:
        """Append as many of *tokens* to *cache* as one turn allows; return how many, and a row."""
        ...


@dataclass(slots=True, eq=False)
class Aside:
    """Another context that follows a reply: behind another prompt, or in another model.

    Attributes:
        host: Whose model reads.
        prompt: What stands before the reply.
        cache: Keys and values of the prompt and of what has been read of the reply.
        always: Whether every position is asked for.
        read: The reply's tokens in the cache.
        first: Scores behind the prompt, shape ``(vocab,)``; None until it has been read.
        rows: Scores behind the root and each node of the draft scored last, ``(n + 1, vocab)``.
    """

    host: Host
    prompt: tuple[int, ...] = field(repr=False)
    cache: DynamicCache = field(repr=False)
    always: bool = False
    read: tuple[int, ...] = field(default=(), repr=False)
    first: Tensor | None = None
    rows: Tensor | None = None

    @property
    def n_past(self) -> int:
        """Tokens in the cache, those of a draft left out."""
        return len(self.prompt) + len(self.read)

    def read_prompt(self) -> None:
        """Read as much of the prompt as one turn allows."""
        start = int(self.cache.get_seq_length())
        n_read, row = self.host.read(self.prompt[start:], self.cache)
        if start + n_read == len(self.prompt):
            self.first = row

    def twin(self) -> Aside:
        """Return an aside for another choice of the same request; the prompt has been read."""
        cache = self.host.model.copy_cache(self.cache)
        return Aside(self.host, self.prompt, cache, self.always, self.read, self.first)

    def follow(self, tokens: tuple[int, ...]) -> tuple[int, ...]:
        """Forget what is not of *tokens*; return those that are still to be read, one at least."""
        known = self.read[: len(tokens) - 1]
        while known != tokens[: len(known)]:
            known = known[:-1]
        if known != self.read or int(self.cache.get_seq_length()) > self.n_past:
            held = (*self.prompt, *known)
            self.cache, self.read = self.host.model.cut_cache(self.cache, held), known
        return tokens[len(known) :]

    def settle(self, walk: Walk, draft: Draft) -> None:
        """Keep of the draft that was scored what *walk* has come along."""
        if self.rows is None:
            return
        if draft:
            compact(self.cache, walk.path, len(draft) + 1)
        self.read = (*walk.before, *(draft.tokens[node - 1] for node in walk.path[1:]))
        self.rows = None


Asides: TypeAlias = dict[BranchKey, Aside]


def read_on(choices: Iterable[Asides]) -> bool:
    """Read a chunk of the first prompt that is still to be read; return whether none was left.

    Choices of one request read each prompt once.
    """
    known: Asides = {}
    for asides in choices:
        for key, aside in asides.items():
            if aside.first is None and key in known:
                asides[key] = known[key].twin()
            elif aside.first is None and aside.prompt:
                aside.read_prompt()
                return False
            known.setdefault(key, asides[key])
    return True


class Followed(Protocol):
    """One choice as branches see it; see `elision.middleware.engines.decoded.Decoded`."""

    cache: DynamicCache
    asides: Asides

    @property
    def tokens(self) -> Sequence[int]:
        """The reply so far."""
        ...


@dataclass(slots=True)
class Waiting:
    """A walk that waits for other scores.

    Attributes:
        sequence: Whose it is.
        draft: What was scored for it.
        need: What it waits for.
        answers: What has been found.
        failure: What broke instead.
    """

    sequence: Followed
    draft: Draft
    need: Need
    answers: dict[BranchKey, Tensor] = field(default_factory=dict)
    failure: Exception | None = None

    def answer_from_rows(self) -> list[BranchKey]:
        """Enter what is there already; return what has to be scored."""
        missing, node = list[BranchKey](), self.need.node
        for key in self.need.keys:
            aside = self.sequence.asides.get(key)
            rows = None if aside is None else aside.rows
            if aside is not None and not self.sequence.tokens and aside.first is not None:
                self.answers[key] = aside.first
            elif rows is not None and node is not None:
                self.answers[key] = rows[node]
            else:
                missing.append(key)
        return missing


def ahead(sequences: Iterable[Followed], drafts: Iterable[Draft]) -> list[tuple[Aside, Segment]]:
    """Return what can be scored together with the rows of *sequences*: as many nodes, in order.

    What has fallen behind, as after a rewind, is left to `fetch`.
    """
    found = []
    for sequence, draft in zip(sequences, drafts, strict=True):
        for aside in sequence.asides.values():
            aside.rows = None
            shares = aside.host.takes_several and is_whole(aside.cache) and is_whole(sequence.cache)
            if aside.always and shares:
                tokens = aside.follow(tuple(sequence.tokens))
                if len(tokens) == 1:
                    nodes = (*tokens, *draft.tokens)
                    found.append((aside, Segment(nodes, draft, aside.cache, aside.n_past)))
    return found


def score_elsewhere(found: Sequence[tuple[Aside, Segment]], home: Host | None) -> None:
    """Score what `ahead` found of other models than *home*'s, each in a forward; enter the rows."""
    hosts = {id(aside.host): aside.host for aside, _ in found if aside.host is not home}
    for host in hosts.values():
        of_host = [one for one in found if one[0].host is host]
        rows = score_trees(host.model.model, [segment for _, segment in of_host])
        for (aside, _), row in zip(of_host, rows, strict=True):
            aside.rows = row


def fetch(asks: Sequence[Waiting], home: Host) -> None:
    """Answer every one of *asks*, or say what broke; those of one model share a forward.

    Args:
        asks: Walks that wait, each of another sequence.
        home: What scores the sequences themselves.
    """
    waiting = [(ask, ask.answer_from_rows()) for ask in asks]
    while wave := [(ask, missing.pop()) for ask, missing in waiting if missing]:
        hosts = {id(host): host for host in (_host(ask, key, home) for ask, key in wave)}
        for host in hosts.values():
            of_host = [(ask, key) for ask, key in wave if _host(ask, key, home) is host]
            _fetch_together(of_host, host)


def _host(ask: Waiting, key: BranchKey, home: Host) -> Host:
    aside = ask.sequence.asides.get(key)
    return home if aside is None else aside.host


def _cache(ask: Waiting, key: BranchKey) -> DynamicCache:
    aside = ask.sequence.asides.get(key)
    return ask.sequence.cache if aside is None else aside.cache


def _fetch_together(wave: list[tuple[Waiting, BranchKey]], host: Host) -> None:
    """Answer one key of each ask; if they cannot share a forward, or it breaks, one by one."""
    shares = host.takes_several and all(is_whole(_cache(ask, key)) for ask, key in wave)
    try:
        if len(wave) == 1 or shares:
            _score(wave, host)
            return
    except Exception as exc:  # one of several may be to blame: the others go on without it
        if len(wave) == 1:
            wave[0][0].failure = exc
            return
    for one in wave:
        _fetch_together([one], host)


def _score(wave: list[tuple[Waiting, BranchKey]], host: Host) -> None:
    scores = [_Scoring.of(ask, key, host) for ask, key in wave]
    # Alone as in company, where it can be: usual kernels would round otherwise.
    if len(scores) > 1 or (host.takes_trees and is_whole(scores[0].segment.cache)):
        rows = [row[-1] for row in score_trees(host.model.model, [s.segment for s in scores])]
    else:
        rows = [host.model.score(scores[0].segment.tokens, scores[0].segment.cache)]
    for (ask, key), scoring, row in zip(wave, scores, rows, strict=True):
        scoring.settle()
        ask.answers[key] = row


@dataclass(frozen=True, slots=True)
class _Scoring:
    """One branch of one walk on its way through a forward."""

    segment: Segment
    aside: Aside | None
    unread: tuple[int, ...]

    @classmethod
    def of(cls, ask: Waiting, key: BranchKey, host: Host) -> _Scoring:
        if isinstance(key, Suffix):
            return cls(_suffix(ask, key.ids, host), None, ())
        aside = ask.sequence.asides.get(key)
        if aside is None:
            raise EngineError("a recipe reads a branch that it did not name when it was opened")
        unread = aside.follow(tuple(ask.sequence.tokens))
        while len(unread) > PREFILL_CHUNK:
            chunk, unread = unread[:PREFILL_CHUNK], unread[PREFILL_CHUNK:]
            host.model.score(chunk, aside.cache)
            aside.read += chunk
        return cls(Segment(unread, chain_of(len(unread)), aside.cache, aside.n_past), aside, unread)

    def settle(self) -> None:
        """Leave the cache as it must be found: less the suffix, or with what has been read."""
        if self.aside is not None:
            self.aside.read += self.unread
        elif can_compact(self.segment.cache):
            truncate(self.segment.cache, self.segment.n_past + self.segment.first)


def _suffix(ask: Waiting, ids: tuple[int, ...], host: Host) -> Segment:
    """Return *ids* as tokens behind the walk's node, on the cache that holds the node's draft."""
    cache, node, draft = ask.sequence.cache, ask.need.node, ask.draft
    if not can_compact(cache):  # what was cropped would be lost: a window has moved on
        cache = host.model.copy_cache(cache)
    n_held, n_scored = int(cache.get_seq_length()), len(draft) + 1
    if node is None or not draft:
        return Segment(ids, chain_of(len(ids)), cache, n_held)
    parents = (*draft.parents, node, *range(n_scored, n_scored + len(ids) - 1))
    tree = Draft((*draft.tokens, *ids), parents)
    return Segment(ids, tree, cache, n_held - n_scored, first=n_scored)


def chain_of(n: int) -> Draft:
    """Return *n* tokens in a row, the first of which is the root."""
    return Draft((0,) * (n - 1), tuple(range(n - 1))) if n > 1 else NOTHING
