"""What rows must become: chains replayed from a request's beginning. Runs in .venv-vllm."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from vllm.config import ModelConfig, VllmConfig

from elision.contract import Context, Here
from elision.guards.carried import Carried
from elision.guards.targets import ForgetTarget, Phrase
from elision.middleware.engines.plugin.orders import KEY, Order
from elision.middleware.engines.vllm_plugin import ElisionProcessor
from elision.middleware.interventions.base import Chain
from elision.middleware.interventions.entropy import EntropyMinimisation
from elision.middleware.interventions.penalties import FrequencyPresence, Repetition
from vllm import SamplingParams

Counts = dict[str, int]
STOP, EOS = 1, 2
CPU = torch.device("cpu")
PHRASES = ("the cat", "sat", "on the mat", "a dog")
TEXT = "the cat sat on the mat and a dog saw it"


def made_config(folder: str) -> Any:
    return VllmConfig(model_config=ModelConfig(model=folder, dtype="float32"))


def made_orders() -> list[Order | None]:
    found = Carried.of([ForgetTarget(title="t", phrases=tuple(Phrase(text=p) for p in PHRASES))])
    assert found is not None
    guard = {"guard": found.digest, "learn": found.body, "stop": STOP}
    return [
        None,
        Order(**guard),
        Order(recipes=(EntropyMinimisation(), Repetition(penalty=1.3)), stop=STOP),
        Order(recipes=(FrequencyPresence(frequency=0.7),), **guard),
        Order(bans={n: (n + 5,) for n in range(40)}, stop=STOP),
        Order(guard="0" * 32, stop=STOP),
    ]


def params_of(order: Order | None) -> Any:
    extra = None if order is None else {KEY: order.dumps()}
    # Where log-probabilities are told every score counts, and can be compared.
    return SamplingParams(temperature=0.8, logprobs=1, extra_args=extra, stop_token_ids=[STOP])


class Oracle:
    """What a row must become: a new chain, replayed from the request's beginning."""

    def __init__(self, processor: ElisionProcessor) -> None:
        self.worker = processor._worker

    def row(
        self, raw: Tensor, order: Order | None, prompt: Sequence[int], output: list[int]
    ) -> Tensor:
        if order is None:
            return raw
        known = not order.guard or self.worker.kept.find(order.guard)
        if not known or -1 in output:
            return self.stopped(raw)
        context = Context(
            lexicon=self.worker.read_lexicon,
            vocab_size=self.worker.vocab_size,
            prompt_ids=tuple(prompt),
            eos=frozenset([EOS]),
        )
        masks = known.recipes(self.worker.lexicon) if order.guard else ()
        chain = Chain.begin((*order.recipes, *masks), context)
        for token in output:
            chain = chain.advance(token)
        row = raw.clone()
        row[[STOP, *order.bans.get(len(output), ())]] = -torch.inf
        row = chain.adjust(row, Here(row, position=len(output)))
        return self.stopped(raw) if row.amax() == -torch.inf else row

    def stopped(self, raw: Tensor) -> Tensor:
        only = torch.full_like(raw, -torch.inf)
        only[STOP] = 0.0
        return only


class Talk:
    """Makes scores that lean towards saying what is forbidden."""

    def __init__(self, vocab_size: int, words: Sequence[int], seed: int) -> None:
        self.random = random.Random(seed)
        self._noise = torch.Generator().manual_seed(seed)
        self._shape = vocab_size
        self._words = list(words)

    def scores(self, n: int) -> Tensor:
        made = torch.randn(n, self._shape, generator=self._noise)
        made[:, self._words] += 4.0
        return made

    def token(self) -> int:
        return self.random.choice(self._words)


def same(got: Tensor, want: Tensor) -> bool:
    return torch.equal(got.isfinite(), want.isfinite()) and torch.allclose(got, want, atol=1e-5)
