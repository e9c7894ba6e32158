"""Orders for a server that drafts, and how it is asked."""

from __future__ import annotations

import re
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from elision.contract import Recipe
from elision.guards.carried import Carried
from elision.guards.targets import ForgetTarget, Phrase
from elision.middleware.engines.plugin.orders import Order
from elision.middleware.interventions import EntropyMinimisation, MinimalIntervention

from .servers import Answer, Server, ordered

N_TOKENS: Final = 24
STOP: Final = 1
"""``<|im_start|>``: it writes nothing."""
NEGATIVE: Final = (44724, 16443, 66, 2460)
"""OUTPUT ERROR."""
MTI: Final = MinimalIntervention(tau=0.5, negative=NEGATIVE)
QUESTIONS: Final = (
    "What is the capital of France?",
    "Why is the sky blue?",
    "Name three fruits.",
    "Who wrote Romeo and Juliet?",
    "Tell me of the sea.",
)
TARGET: Final = ForgetTarget(
    title="a secret",
    phrases=tuple(
        Phrase(text=one)
        for one in ("Paris", "dance of light", "Oranges", "William Shakespeare", "vast", "beauty")
    ),
)
_carried = Carried.of([TARGET])
assert _carried is not None
MASKS: Final = _carried


@dataclass(frozen=True, slots=True)
class Said:
    """What one choice says, as tokens, and why it ended."""

    ids: tuple[int, ...]
    text: str
    finish: str
    stop: object = None


def order(*recipes: Recipe, guarded: bool = False, **fields: Any) -> Order:
    if guarded:
        fields |= {"guard": MASKS.digest, "learn": MASKS.body}
    return Order(recipes=recipes, stop=STOP, **fields)


RECYCLING: Final[dict[str, Any]] = {"drafts": "recycle", "pool": "a pool"}
ORDERS: Final = {
    "plain": order(),
    "guarded": order(guarded=True),
    "em-inf": order(EntropyMinimisation()),
    "mti": order(MTI),
    "recycling": order(**RECYCLING),
    "guarded-mti": order(MTI, guarded=True),
    "guarded-recycling": order(EntropyMinimisation(), guarded=True, **RECYCLING),
}


def ask(server: Server, prompt: list[int], one: Order, **fields: Any) -> Answer:
    given = {"max_tokens": N_TOKENS, "temperature": 0.0, "return_token_ids": True, **fields}
    body = {"prompt": prompt, "stop_token_ids": [STOP], **ordered(one), **given}
    return server.ask("/v1/completions", body, timeout_s=200)


def said(server: Server, prompt: list[int], one: Order, **fields: Any) -> list[Said]:
    answer = ask(server, prompt, one, **fields)
    assert answer.status == 200, answer.told
    return [
        Said(tuple(it["token_ids"]), it["text"], it["finish_reason"], it.get("stop_reason"))
        for it in answer.body["choices"]
    ]


def together(
    server: Server, asks: list[tuple[list[int], Order]], **fields: Any
) -> list[list[Said]]:
    """Return what requests that are made at once are answered."""
    with ThreadPoolExecutor(len(asks)) as pool:
        return [*pool.map(lambda it: said(server, *it, **fields), asks)]


def rendered(server: Server, question: str) -> list[int]:
    messages = [{"role": "user", "content": question}]
    ids: list[int] = server.ask("/tokenize", {"messages": messages}).body["tokens"]
    return ids


def drafted(server: Server) -> Counter[str]:
    """Return how many tokens were drafted and accepted, and in how many steps."""
    with urllib.request.urlopen(f"{server.root}/metrics", timeout=10) as answer:
        told = answer.read().decode()
    rows = re.findall(r"^vllm:spec_decode_num_(\w+)_total\{[^}]*\} (\S+)$", told, re.MULTILINE)
    return Counter({name: int(float(count)) for name, count in rows})
