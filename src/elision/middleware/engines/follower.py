"""A model that reads texts along with somebody who writes them."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch

from elision.middleware.engines.cache import full_cache, is_whole
from elision.middleware.engines.causal import PREFILL_CHUNK
from elision.middleware.engines.ragged import Segment, can_be_ragged, score_trees
from elision.middleware.speculation.base import NOTHING

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

Text: TypeAlias = tuple[int, ...]


@dataclass(slots=True, eq=False)
class _Strand:
    """A text that a model has read.

    Attributes:
        cache: Its keys and values.
        text: The text.
        scores: Those behind it, shape ``(V,)``; None before anything was read.
    """

    cache: Any
    text: Text = field(default=(), repr=False)
    scores: Tensor | None = field(default=None, repr=False)

    def is_before(self, text: Text) -> bool:
        """Return whether *text* goes on where this one ends."""
        return text[: len(self.text)] == self.text

    def twin(self) -> _Strand:
        """Return a strand of the same text that goes its own way."""
        return _Strand(copy.deepcopy(self.cache), self.text, self.scores)

    def cut(self, n: int) -> None:
        """Go back to the first *n* tokens."""
        self.cache.crop(n - len(self.text))
        self.text, self.scores = self.text[:n], None


class Follower:
    """A model that reads along: texts that grow by a token now and then, and fork, and end.

    Keeps a cache for each text that goes on; those that grow at the same time share a forward, if
    the model takes that. What it lacks it reads anew: where nothing can be taken up again it is
    slow, never wrong.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = cast("Any", model)
        self._strands: list[_Strand] = []

    def score(self, wanted: Iterable[Text], *, live: Iterable[Text]) -> dict[Text, Tensor]:
        """Return the scores behind each of *wanted*, shape ``(V,)``.

        Args:
            wanted: Texts, none of them empty.
            live: All that may be asked for later on, or whose continuations may be.
        """
        wanted = dict.fromkeys(wanted)
        live = dict.fromkeys((*wanted, *live))
        with torch.inference_mode():
            taken = self._take(wanted, live)
            self._read({text: strand for text, strand in taken.items() if strand.text != text})
        spare = [s for s in self._strands if s not in taken.values()]
        self._strands = [*taken.values(), *(s for s in spare if any(map(s.is_before, live)))]
        # A copy is an ordinary tensor again, and lets go of the forward's other rows.
        return {text: cast("Tensor", strand.scores).clone() for text, strand in taken.items()}

    def _take(self, wanted: Iterable[Text], live: Iterable[Text]) -> dict[Text, _Strand]:
        """Return what each of *wanted* is read on with; no two of them the same strand."""
        sources = {text: self._nearest(text) for text in live}
        waiting = Counter(id(strand) for strand in sources.values())
        dead = [s for s in self._strands if not any(map(s.is_before, live))]
        taken: dict[Text, _Strand] = {}
        for text in wanted:
            strand = sources[text] or self._cut_back(text, dead)
            waiting[id(strand)] -= 1
            taken[text] = strand if waiting[id(strand)] < 1 else strand.twin()
        return taken

    def _nearest(self, text: Text) -> _Strand | None:
        """Return the strand that has read most of *text* and nothing else."""
        found = (strand for strand in self._strands if strand.is_before(text))
        return max(found, key=lambda strand: len(strand.text), default=None)

    def _cut_back(self, text: Text, dead: list[_Strand]) -> _Strand:
        """Return a strand that has read some of *text*: one that nobody needs, or a new one."""
        shared = {n: _n_shared(strand.text, text[:-1]) for n, strand in enumerate(dead)}
        best = max(shared, key=lambda n: shared[n], default=None)
        if best is None or not shared[best] or not is_whole(dead[best].cache):
            return _Strand(full_cache(self._model.config))
        strand = dead.pop(best)
        strand.cut(shared[best])
        return strand

    # --- reading ---------------------------------------------------------------------------------

    @cached_property
    def _takes_several(self) -> bool:
        return can_be_ragged(self._model)

    def _read(self, unread: Mapping[Text, _Strand]) -> None:
        """Read every text to its end."""
        several = {text: strand for text, strand in unread.items() if len(text) > 1}
        if len(several) < 2 or not self._takes_several:
            several = {}
        for text, strand in unread.items():
            self._read_alone(strand, text[:-1] if text in several else text)
        segments = [Segment(t[-1:], NOTHING, s.cache, len(s.text)) for t, s in several.items()]
        rows = score_trees(self._model, segments) if segments else []
        for (text, strand), row in zip(several.items(), rows, strict=True):
            strand.text, strand.scores = text, row[-1]

    def _read_alone(self, strand: _Strand, text: Text) -> None:
        """Read on to the end of *text*."""
        unread = text[len(strand.text) :]
        for start in range(0, len(unread), PREFILL_CHUNK):
            ids = torch.tensor([unread[start : start + PREFILL_CHUNK]], device=self._model.device)
            out = self._model(
                input_ids=ids, past_key_values=strand.cache, use_cache=True, logits_to_keep=1
            )
            strand.scores = out.logits[0, -1]
        strand.text = text


def _n_shared(text: Text, other: Text) -> int:
    """Return how many tokens both begin with."""
    pairs = enumerate(zip(text, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(text), len(other)))
