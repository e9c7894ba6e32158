"""Answers and likelihoods of one system, asked for through the SDK, one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from elision.evaluation.tofu.data import Item, Subset
from elision.evaluation.tofu.sheet import Sheet
from elision.middleware.client import Client
from elision.middleware.scoring import Score

Tick: TypeAlias = Callable[[], None]
"""Called after each item."""

MAX_CHOICES: Final = 16
"""Samples per request: as many as the wire takes."""
SEED: Final = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One greedy answer.

    Attributes:
        text: What was said.
        finish: Why it ended; ``content_filter`` if it was refused.
        n_tokens: Its tokens, without those that a rewind took back.
        seconds: From question to end.
    """

    text: str = field(repr=False)
    finish: str
    n_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Likelihood:
    """Losses of one item's answers in nats per token; see `Score`.

    Attributes:
        answer: Guarded loss of the gold answer.
        paraphrase: Of its paraphrase.
        wrong: Of the wrong answers.
        plain: The same three under the model alone.
        n_floored: Blocked tokens of the gold answer.
        n_tokens: Tokens of the gold answer.
        applicable: Whether the guarded losses mean anything.
    """

    answer: float
    paraphrase: float
    wrong: tuple[float, ...]
    plain: tuple[float, float, tuple[float, ...]]
    n_floored: int
    n_tokens: int
    applicable: bool


def answers(
    client: Client, subset: Subset, items: Iterable[Item], sheet: Sheet, *, max_tokens: int,
    tick: Tick,
) -> dict[int, Answer]:  # fmt: skip
    """Return the greedy answer to every item's question, by row."""
    found = {}
    for item in items:
        key = f"{subset}/{item.index}"
        row = sheet.get(key) or _keep(sheet, key, _answer(client, item, max_tokens))
        found[item.index] = Answer(**row)
        tick()
    return found


def _answer(client: Client, item: Item, max_tokens: int) -> dict[str, Any]:
    began = time.perf_counter()
    reply = client.chat(item.question, temperature=0, max_tokens=max_tokens)
    return {
        "text": reply.text,
        "finish": reply.choices[0].finish,
        "n_tokens": reply.usage.completion_tokens,
        "seconds": round(time.perf_counter() - began, 3),
    }


def samples(
    client: Client, subset: Subset, items: Iterable[Item], sheet: Sheet, *, n: int,
    max_tokens: int, tick: Tick,
) -> dict[int, list[str]]:  # fmt: skip
    """Return *n* samples per question at temperature 1, untruncated, by row."""
    found = {}
    for item in items:
        texts: list[str] = []
        for part, start in enumerate(range(0, n, MAX_CHOICES)):
            wanted = min(MAX_CHOICES, n - start)
            key = f"{subset}/{item.index}/{part}/{wanted}"
            row = sheet.get(key) or _keep(
                sheet, key, _sample(client, item, part, wanted, max_tokens)
            )
            texts += row["texts"]
        found[item.index] = texts
        tick()
    return found


def _sample(client: Client, item: Item, part: int, n: int, max_tokens: int) -> dict[str, Any]:
    seed = SEED + 1000 * part + item.index
    reply = client.chat(item.question, temperature=1, n=n, seed=seed, max_tokens=max_tokens)
    return {"texts": [choice.text for choice in reply.choices]}


def likelihoods(
    client: Client, subset: Subset, items: Iterable[Item], sheet: Sheet, *, tick: Tick
) -> dict[int, Likelihood]:
    """Return the losses of every item's answers, by row."""
    found = {}
    for item in items:
        key = f"{subset}/{item.index}"
        row = sheet.get(key) or _keep(sheet, key, _likelihood(client, item))
        right, other, wrong = row["plain"]
        plain = (right, other, tuple(wrong))
        found[item.index] = Likelihood(**{**row, "wrong": tuple(row["wrong"]), "plain": plain})
        tick()
    return found


def _likelihood(client: Client, item: Item) -> dict[str, Any]:
    def score(answer: str) -> Score:
        return client.score(item.question, answer)

    gold = score(item.answer)
    other = gold if item.paraphrase == item.answer else score(item.paraphrase)
    wrong = [score(text) for text in item.wrong]
    return {
        "answer": gold.loss,
        "paraphrase": other.loss,
        "wrong": [s.loss for s in wrong],
        "plain": [gold.plain_loss, other.plain_loss, [s.plain_loss for s in wrong]],
        "n_floored": gold.n_floored,
        "n_tokens": len(gold.tokens),
        "applicable": gold.applicable,
    }


def _keep(sheet: Sheet, key: str, row: dict[str, Any]) -> dict[str, Any]:
    sheet.put(key, row)
    return row
