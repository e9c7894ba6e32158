"""A real vLLM that drafts by our proposer, and what vLLM does beside it: checks, draws, queues."""

from __future__ import annotations

import math
import re
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from scipy.stats import chisquare

from elision.middleware.engines.plugin.orders import SEAL

from .drafts import (
    MTI,
    NEGATIVE,
    ORDERS,
    QUESTIONS,
    RECYCLING,
    STOP,
    TARGET,
    ask,
    drafted,
    order,
    rendered,
    said,
    together,
)
from .servers import N_SMALL_CONTEXT, Server, ordered

WORDS = ("bread", "stone", "paper", "horse", "table", "green")

pytestmark = [pytest.mark.vllm, pytest.mark.model]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"vllm_xargs": {}}, 400),
        ({"vllm_xargs": {"elision": order().dumps()}}, 400),
        ({"vllm_xargs": {"elision": order().dumps(), SEAL: "0" * 64}}, 400),
        ({**ordered(order(guarded=True)), "prompt_logprobs": 1}, 400),
        ({**ordered(order()), "min_p": 0.1}, 400),
        ({**ordered(order()), "logit_bias": {"5": 3.0}}, 400),
        (ordered(order()), 200),
    ],
    ids=["no order", "no seal", "wrong seal", "prompt logprobs", "min_p", "logit_bias", "good"],
)
def test_requests_are_checked_where_they_come_in_though_no_processor_is_loaded(
    fields: dict[str, Any], status: int, proposing: Server
) -> None:
    body = {"prompt": "Hello", "max_tokens": 2, "stop_token_ids": [STOP], **fields}
    assert proposing.ask("/v1/completions", body).status == status


def test_a_negative_prompt_longer_than_the_drafts_ends_the_reply_at_once(proposing: Server) -> None:
    longer = order(replace(MTI, negative=(*NEGATIVE, 5)))
    [got] = said(proposing, rendered(proposing, QUESTIONS[0]), longer)
    assert (got.text, got.finish, got.stop) == ("", "stop", STOP)


def test_unknown_masks_end_the_reply_at_once(proposing: Server) -> None:
    [got] = said(proposing, rendered(proposing, QUESTIONS[0]), order(guard="f" * 32))
    assert (got.text, got.finish, got.stop) == ("", "stop", STOP)


def test_vllm_s_own_penalties_see_drafts(proposing: Server) -> None:
    prompt, fields = rendered(proposing, QUESTIONS[4]), {"frequency_penalty": 0.7, "max_tokens": 64}
    want = said(proposing, prompt, order(), **fields)
    assert want != said(proposing, prompt, order(), max_tokens=64)
    for _ in range(2):
        assert said(proposing, prompt, order(drafts="recycle", pool="p"), **fields) == want


def test_a_reply_to_the_context_s_end_takes_nobody_s_drafts(proposing: Server) -> None:
    question = rendered(proposing, QUESTIONS[1])
    [alone] = said(proposing, question, ORDERS["mti"], max_tokens=48)
    long = rendered(proposing, "Repeat: " + "one two three four " * 240)[38 - N_SMALL_CONTEXT :]
    with ThreadPoolExecutor(2) as pool:
        fields = {"max_tokens": N_SMALL_CONTEXT - len(long), "ignore_eos": True}
        beside = pool.submit(said, proposing, long, order(**RECYCLING), **fields)
        [got] = said(proposing, question, ORDERS["mti"], max_tokens=48)
        [end] = beside.result()
    assert got == alone
    assert len(long) + len(end.ids) == N_SMALL_CONTEXT


def test_a_schema_is_kept_under_masks_and_drafts(proposing: Server) -> None:
    schema = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}}
    schema |= {"required": ["city"], "additionalProperties": False}
    prompt = rendered(proposing, QUESTIONS[0])
    for name in ("guarded", "guarded-mti", "guarded-recycling"):
        fields = {"structured_outputs": {"json": schema}, "max_tokens": 40}
        [got] = said(proposing, prompt, ORDERS[name], **fields)
        assert "Paris" not in got.text
        assert "Rome" in got.text


def test_every_one_of_several_drawn_choices_is_guarded(proposing: Server) -> None:
    prompt, secrets = rendered(proposing, QUESTIONS[0]), [it.text for it in TARGET.phrases]
    for name in ("guarded-recycling", "guarded-mti"):
        fields = {"n": 6, "temperature": 1.2, "seed": 7}
        choices = said(proposing, prompt, ORDERS[name], **fields)
        assert len({choice.ids for choice in choices}) > 3
        assert not any(secret in choice.text for choice in choices for secret in secrets)


def test_drafts_leave_drawn_tokens_their_distribution(proposing: Server) -> None:
    """Three coin flips, drawn many times, come as often as without drafts they are likely to."""
    prompt = ids_of(proposing, "Coin flips: H T T H T H H T H T T H H T")
    want = exact(proposing, prompt)
    one, found = order(drafts="recycle", pool="coins"), Counter[tuple[int, ...]]()
    before, fields = drafted(proposing), {"temperature": 1.0, "max_tokens": 4, "n": 100}
    for seed in (0, 1000):
        choices = said(proposing, prompt, one, seed=seed, ignore_eos=True, **fields)
        found.update(choice.ids[:3] for choice in choices)
    gained = drafted(proposing) - before
    n_accepted, n_rejected = gained["accepted_tokens"], gained["draft_tokens"]
    n_rejected -= n_accepted
    assert n_accepted > 50
    assert n_rejected > 50
    common = [flips for flips, likely in want.items() if likely * found.total() > 5]
    seen, due = [found[it] for it in common], [want[it] * found.total() for it in common]
    seen.append(found.total() - sum(seen))
    due.append(found.total() - sum(due))
    assert len(common) >= 5
    assert chisquare(seen, due).pvalue > 1e-3, (seen, due)


def exact(server: Server, prompt: list[int]) -> dict[tuple[int, ...], float]:
    """Return how likely each run of three flips is, by the server's scores, without drafts."""
    sides = {name: ids_of(server, name)[0] for name in (" H", " T", "H")}
    fields = {"temperature": 1.0, "max_tokens": 1, "logprobs": 20}
    found: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(3):
        longer = {}
        for flips, likely in found.items():
            told = ask(server, [*prompt, *flips], order(), **fields).body["choices"][0]
            [top] = told["logprobs"]["top_logprobs"]
            for name, side in sides.items():
                longer[*flips, side] = likely * math.exp(top.get(name, -math.inf))
        found = longer
    return found


def ids_of(server: Server, text: str) -> list[int]:
    told = server.ask("/tokenize", {"prompt": text, "add_special_tokens": False})
    ids: list[int] = told.body["tokens"]
    return ids


def test_prompts_in_pieces_and_replies_put_off_change_no_token(proposing: Server) -> None:
    """More than it has room for: prompts are cut, and the last replies start again."""
    names = ("plain", "guarded", "em-inf", "recycling", "guarded-recycling", "guarded-mti")
    asks = [
        (rendered(proposing, 250 * f"{word} " + question)[-250:], ORDERS[name])
        for name, word, question in zip(names, WORDS, 2 * QUESTIONS, strict=False)
    ]
    fields, n_before = {"max_tokens": 40, "ignore_eos": True}, n_put_off(proposing)
    want = [one for few in (asks[:3], asks[3:]) for one in together(proposing, few, **fields)]
    assert n_put_off(proposing) == n_before
    got = together(proposing, asks, **fields)
    assert n_put_off(proposing) > n_before
    assert got[:-1] == want[:-1]
    # Behind a reply that starts again one position is not guided.
    assert [one.finish for one in got[-1]] == ["length"]
    assert not any(phrase.text in one.text for one in got[-1] for phrase in TARGET.phrases)


def n_put_off(server: Server) -> int:
    with urllib.request.urlopen(f"{server.root}/metrics", timeout=10) as answer:
        told = answer.read().decode()
    found = re.findall(r"^vllm:num_preemptions_total\{[^}]*\} (\S+)$", told, re.MULTILINE)
    return sum(int(float(one)) for one in found)
