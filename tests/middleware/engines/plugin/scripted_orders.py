"""Orders for a tiny model, and what it writes under each when nothing is drafted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from elision.contract import Capability, Context, Here, Recipe, in_order
from elision.guards.carried import Carried
from elision.guards.targets import ForgetTarget, Phrase
from elision.middleware.engines.plugin.orders import Order
from elision.middleware.interventions import EntropyMinimisation, MinimalIntervention
from elision.middleware.interventions.base import Chain
from elision.middleware.interventions.bias import LogitBias
from elision.middleware.interventions.penalties import FrequencyPresence
from elision.testing.tokenizers import byte_lexicon

from .scripted_runner import EOS, STOP, TinyModel

PROMPT = tuple(b"Once upon")
NEGATIVE = tuple(b"ov")
"""A tiny model's letters hold it often: then the reply itself says words of it."""
OTHERS = {*range(259)} - {*b" abcdefghijklmnopqrstuvwxyz"}
LETTERS = LogitBias(bias=dict.fromkeys(OTHERS, -100.0))
MTI = MinimalIntervention(tau=1.0, scale=2.0, negative=NEGATIVE)
PENALTY = FrequencyPresence(frequency=1.0)
SECRETS = ("vqovqovqo", "ctietiymc")


def carried() -> Carried:
    found = Carried.of([ForgetTarget(title="t", phrases=tuple(map(phrase, SECRETS)))])
    assert found is not None
    return found


def phrase(text: str) -> Phrase:
    return Phrase(text=text)


MASKS = carried()


def order(*recipes: Recipe, guarded: bool = False, recycles: bool = False) -> Order:
    guard = {"guard": MASKS.digest, "learn": MASKS.body} if guarded else {}
    drafts: dict[str, Any] = {"drafts": "recycle", "pool": "p"} if recycles else {}
    return Order(stop=STOP, recipes=(LETTERS, *recipes), **guard, **drafts)


ORDERS = {
    "plain": order(),
    "guarded": order(guarded=True),
    "em-inf": order(EntropyMinimisation()),
    "mti": order(MTI),
    "mti-bans": replace(order(MTI), bans=dict.fromkeys(range(0, 64, 4), (*b"ct",))),
    "mti-guarded": order(MTI, PENALTY, guarded=True, recycles=True),
    "recycling": order(recycles=True),
    "recycling-penalty": order(PENALTY, recycles=True),
    "recycling-guarded": order(guarded=True, recycles=True),
    "none": None,
}


def alone(prompt: tuple[int, ...], one: Order | None, n_tokens: int) -> list[int]:
    """Write token by token, every branch in a forward of its own: the slow obvious way.

    MTI guides every position but the first and those behind words of the negative prompt that
    the reply itself says, up to as many as it has.
    """
    model, chain = TinyModel(), opened(prompt, one)
    free = Chain(tuple(s for s in chain.early if not hasattr(s, "needs")), chain.late)
    tokens: list[int] = []
    n_said = len(NEGATIVE)  # as many as are left unguided: behind the prompt nothing was drafted
    for position in range(n_tokens):
        row = model.compute_logits(model.hidden((*prompt, *tokens)))[-1]
        other = model.compute_logits(model.hidden((*prompt, *tokens, *NEGATIVE)))[-1]
        is_guided = position > 0 and n_said == 0
        here = Here(row, position=position, branch=lambda _, other=other: other)
        scores = (chain if is_guided else free).adjust(row, here).clone()
        if one is not None:
            scores[[STOP, *one.bans.get(position, ())]] = float("-inf")
        token = int(scores.argmax())
        follows = position > 0 and n_said < len(NEGATIVE) and token == NEGATIVE[n_said]
        n_said = n_said + 1 if follows else 0
        tokens.append(token)
        chain, free = chain.advance(token), free.advance(token)
    return tokens


def opened(prompt: tuple[int, ...], one: Order | None) -> Chain:
    if one is None:
        return Chain()
    lexicon = byte_lexicon()
    masks = MASKS.compile().recipes(lexicon) if one.guard else ()
    offers = Capability.LOGITS | Capability.BRANCH
    context = Context(
        lexicon=lexicon,
        vocab_size=259,
        prompt_ids=prompt,
        eos=frozenset({EOS}),
        capabilities=offers,
    )
    return Chain.begin(in_order((*one.recipes, *masks)), context)
