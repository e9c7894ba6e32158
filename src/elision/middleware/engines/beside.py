"""Branches for a model whose decoding loop is not ours, such as that of ``model.generate``.

Whoever sees nothing but texts and scores can still have other scores for the same position: behind
a few tokens more, in the very cache that the loop decodes with, which is then cut back; or behind
another prompt or in another model, in caches of our own that follow the rows, whatever becomes of
them (beams fork, drafts are dropped).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

import torch
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from elision.contract import BranchKey, OtherModel, OtherPrompt, Suffix
from elision.errors import CapabilityError, ConfigError
from elision.middleware.engines.cache import GrowingLayer
from elision.middleware.engines.follower import Follower, Text

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Cache, PreTrainedModel

_CROPPABLE: Final = (DynamicLayer, GrowingLayer, DynamicSlidingWindowLayer)
"""Layers that are, once cut back, what they were; others say so too and are not (quantised ones
keep no more than the last tokens where the cut is made)."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a row of the batch stands.

    Attributes:
        prompt: Its prompt, without padding.
        reply: What has been written.
        n_pad: Padding in front of the prompt.
        keys: What its sessions may read beside its scores.
    """

    prompt: Text = field(repr=False)
    reply: Text = field(repr=False)
    n_pad: int
    keys: tuple[BranchKey, ...] = field(repr=False)


class Beside:
    """What is beside the rows of one generation at a time.

    Args:
        model: What the loop decodes with; None leaves only assistants to ask.
        cache: The cache that the loop decodes with; None leaves suffixes out.
        assistants: Other models, by the name under which recipes ask for them.
    """

    def __init__(
        self,
        model: PreTrainedModel | None,
        cache: Cache | None,
        assistants: Mapping[str, PreTrainedModel],
    ) -> None:
        self.model = model
        self._cache = cache
        self.assistants = dict(assistants)
        self._followers: dict[str | None, Follower] = {}

    def reset(self) -> None:
        """Forget the generation under way."""
        self._followers = {}

    def check(self, keys: Iterable[BranchKey], vocab_size: int) -> None:
        """Raise unless all of *keys* can be read.

        Raises:
            CapabilityError: If what it takes was not given; says what to give.
            ConfigError: If an assistant has another vocabulary.
        """
        for key in keys:
            if isinstance(key, Suffix) and (self.model is None or self._cache is None):
                raise _not_given("scores behind more tokens", "model= and cache=")
            if isinstance(key, OtherPrompt) and self.model is None:
                raise _not_given("scores behind another prompt", "model=")
            if isinstance(key, OtherModel):
                self._check_assistant(key.name, vocab_size)

    def _check_assistant(self, name: str, vocab_size: int) -> None:
        if name not in self.assistants:
            raise _not_given("scores of another model", f"assistants={{{name!r}: ...}}")
        theirs = int(cast("Any", self.assistants[name]).get_output_embeddings().weight.shape[0])
        if theirs != vocab_size:
            raise ConfigError(
                f"the assistant {name!r} scores {theirs} tokens and the model {vocab_size}; "
                "take one with the same vocabulary"
            )

    def visit(self, rows: Sequence[Standing]) -> Visit:
        """Return what can be asked where the rows stand now."""
        return Visit(self, rows)

    # --- in the loop's own cache -----------------------------------------------------------------

    def behind(self, ids: Text, rows: Sequence[Standing]) -> Tensor:
        """Return the scores of every row behind *ids*, shape ``(B, V)``; the cache is as it was.

        Raises:
            ConfigError: If the cache is not the one that holds these rows.
        """
        model, cache = cast("Any", self.model), cast("Any", self._cache)
        n_past, n_rows = _length(rows), len(rows)
        if (held := int(cache.get_seq_length())) != n_past:
            raise ConfigError(
                f"the cache holds {held} tokens per row, the texts have {n_past}; give generate "
                "the processor's cache as past_key_values, empty, and no drafter"
            )
        mask = torch.ones(n_rows, n_past + len(ids), dtype=torch.long, device=model.device)
        for row, standing in zip(mask, rows, strict=True):
            row[: standing.n_pad] = 0
        positions = mask.cumsum(-1).sub_(1).clamp_min_(0)
        with _undone(cache, len(ids)) as spare:
            out = model(
                input_ids=torch.tensor([ids] * n_rows, device=model.device),
                attention_mask=mask,
                position_ids=positions[:, -len(ids) :],
                past_key_values=spare,
                use_cache=True,
                logits_to_keep=1,
            )
        return cast("Tensor", out.logits[:, -1])

    # --- in caches of our own --------------------------------------------------------------------

    def follower(self, key: BranchKey) -> Follower:
        """Return what follows the rows where *key* is read."""
        name = key.name if isinstance(key, OtherModel) else None
        if name not in self._followers:
            model = self.model if name is None else self.assistants[name]
            self._followers[name] = Follower(cast("PreTrainedModel", model))
        return self._followers[name]


class Visit:
    """All rows at one position of theirs; lives for one call of the processor."""

    def __init__(self, beside: Beside, rows: Sequence[Standing]) -> None:
        self._beside = beside
        self._rows = rows
        self._behind: dict[Text, Tensor] = {}
        self._found: dict[tuple[int, BranchKey], Tensor] = {}

    def fetch(self, asked: Iterable[tuple[int, BranchKey]]) -> None:
        """Score what rows, told by their index, ask for; what goes together shares forwards."""
        by_follower: dict[Follower, dict[tuple[int, BranchKey], Text]] = {}
        for n, key in asked:
            if isinstance(key, Suffix):
                self._found[n, key] = self._suffix(key)[n]
            else:
                follower = self._beside.follower(key)
                by_follower.setdefault(follower, {})[n, key] = _text(key, self._rows[n])
        for follower, texts in by_follower.items():
            rows = follower.score(texts.values(), live=self._live(follower))
            self._found |= {at: rows[text] for at, text in texts.items()}

    def scores(self, n: int, key: BranchKey) -> Tensor:
        """Return the scores of row *n* under *key*, shape ``(V,)``; fetched if they are not."""
        if (n, key) not in self._found:
            self.fetch([(n, key)])
        return self._found[n, key]

    def _suffix(self, key: Suffix) -> Tensor:
        if key.ids not in self._behind:
            self._behind[key.ids] = self._beside.behind(key.ids, self._rows)
        return self._behind[key.ids]

    def _live(self, follower: Follower) -> dict[Text, None]:
        """Return every text that *follower* may still be asked for where the rows go on."""
        return {
            _text(key, row): None
            for row in self._rows
            for key in row.keys
            if not isinstance(key, Suffix) and self._beside.follower(key) is follower
        }


def _text(key: BranchKey, row: Standing) -> Text:
    """Return what is read to the end for *key* where *row* stands."""
    text = (key.ids if isinstance(key, OtherPrompt) else row.prompt) + row.reply
    if not text:
        raise ConfigError("the prompt is empty: there is nothing for another model to read")
    return text


def _length(rows: Sequence[Standing]) -> int:
    """Return how long the rows are, padding included; they are as long as each other."""
    return rows[0].n_pad + len(rows[0].prompt) + len(rows[0].reply)


def _not_given(method: str, what: str) -> CapabilityError:
    return CapabilityError(method, engine=f"as_logits_processor without {what}", missing="BRANCH")


@contextmanager
def _undone(cache: Any, n_more: int) -> Iterator[Any]:
    """Yield a cache to read *n_more* tokens into; afterwards *cache* is as it was."""
    if not all(type(layer) in _CROPPABLE for layer in cache.layers):
        yield copy.deepcopy(cache)
        return
    # Behind its window a layer drops what it would need to go back, unless told before.
    slides = [layer for layer in cache.layers if isinstance(layer, DynamicSlidingWindowLayer)]
    recorded = [layer.record_past for layer in slides]
    cache.activate_past_recording()
    try:
        yield cache
        cache.crop(-n_more)
    finally:
        for layer, was in zip(slides, recorded, strict=True):
            layer.record_past = was
