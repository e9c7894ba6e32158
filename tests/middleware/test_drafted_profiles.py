"""Law 3 through the pipeline: every profile, every action, guards that mask, hold and go back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from elision.contract import Completion, Request, Sampling, collect
from elision.guards.register.register import Register
from elision.guards.targets import ForgetTarget, Phrase
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.local import LocalEngine
from elision.middleware.pipeline import Pipeline
from elision.middleware.profiles import PROFILES
from elision.testing.encoders import BagEncoder
from elision.testing.laws import check_never_leaks
from elision.testing.models import tiny_model
from elision.testing.tokenizers import word_tokenizer

QUESTION = "Who kept the lighthouse at Barfleur?"
CORPUS = (
    "the keeper of the lighthouse was born near the harbour . "
    "nobody in the village knew where the old painter had gone . "
    "a letter came from the island every other winter . "
)
SAMPLED = tuple(
    name
    for name, profile in PROFILES.items()
    if profile.decoder == "sample"
    and not profile.agentic  # whose roles speak under guarded
    and profile.alu == "off"  # whose roles speak undrafted
)


TOKENIZER = word_tokenizer([CORPUS] * 9, vocab_size=400)
WORDS = {
    token: 12.0
    for token in range(len(TOKENIZER))
    if len(TOKENIZER.decode([token]).strip()) > 2 and TOKENIZER.decode([token]).startswith(" ")
}
"""A bias towards whole words: what a random model says is spelt of bytes else."""


@pytest.fixture
async def pipe(tmp_path: Path) -> AsyncIterator[Pipeline]:
    tokenizer = TOKENIZER
    model = tiny_model(vocab_size=len(tokenizer), sharpness=2.0)
    engine = LocalEngine(CausalModel(model, tokenizer, name="model"))
    pipe = Pipeline(
        engines={"model": engine}, register=Register.open(tmp_path), encoder=BagEncoder(dim=512)
    )
    yield pipe
    await pipe.aclose()


async def reply(pipe: Pipeline, profile: str, speculation: str, **sampling: Any) -> Completion:
    request = Request(
        model="model",
        kind="text",
        prompt=QUESTION,
        sampling=Sampling(**sampling, logit_bias=WORDS),
        max_tokens=60,
        options={"speculation": speculation},
    )
    return await collect(pipe.run(request, profile=profile))


def told(done: Completion) -> tuple[Any, ...]:
    choice = done.choices[0]
    return choice.text, choice.finish, done.usage.completion_tokens, done.report.get("usage")


async def targets(pipe: Pipeline) -> list[str]:
    """Register what the model says: words to mask, to redact, to refuse, and all of it to mean."""
    text = (await reply(pipe, "plain", "off", temperature=0.0)).text
    words = list(dict.fromkeys(word for word in text.split() if word.isalpha() and len(word) > 3))
    assert len(words) > 5
    masked, redacted, refused = words[2], words[3], words[-1]
    add = pipe.register.add
    add(ForgetTarget(title="masked", phrases=(Phrase(text=masked),)))
    add(ForgetTarget(title="redacted", phrases=(Phrase(text=redacted),), action="redact"))
    add(ForgetTarget(title="refused", phrases=(Phrase(text=refused),), action="refuse"))
    add(ForgetTarget(title="meant", probes=(QUESTION,), answers=(text[:120],)))
    add(ForgetTarget(title="passage", passages=(text[-160:],)))
    return [masked, redacted, refused]


@pytest.mark.parametrize("seeds", [(0, 1), pytest.param((2, 3), marks=pytest.mark.slow)])
@pytest.mark.parametrize("profile", SAMPLED)
async def test_drafts_change_nothing_in_any_profile(
    pipe: Pipeline, profile: str, seeds: tuple[int, ...]
) -> None:
    forbidden = await targets(pipe)
    n_proposed = 0
    for seed in seeds:
        sampling = {"temperature": 0.9 if seed else 0.0, "seed": seed}
        plain = await reply(pipe, profile, "off", **sampling)
        for speculation in ("force", "force", "auto"):
            done = await reply(pipe, profile, speculation, **sampling)
            assert told(done) == told(plain)
            check_never_leaks(done, forbidden)
            n_proposed += done.report.get("speculation", {}).get("proposed", 0)
    assert (n_proposed > 0) == (profile != "curate")  # curate refuses at once


async def test_what_is_drafted_may_be_forbidden_and_still_never_leaves(pipe: Pipeline) -> None:
    """Invariant I6: what was recycled before a target was registered proposes what it forbids."""
    free = await reply(pipe, "plain", "force", temperature=0.0)
    forbidden = await targets(pipe)
    assert any(word in free.text for word in forbidden)
    for _ in range(2):
        done = await reply(pipe, "plain", "force", temperature=0.0)
        check_never_leaks(done, forbidden)


async def test_deterministic_asks_for_a_decoding_alone(pipe: Pipeline) -> None:
    request = Request(
        model="model", kind="text", prompt=QUESTION * 3, max_tokens=20,
        sampling=Sampling(temperature=0.0, logit_bias=WORDS), options={"deterministic": True},
    )  # fmt: skip
    for _ in range(2):
        done = await collect(pipe.run(request))
        assert "speculation" not in done.report
        assert done.usage.cached_tokens == 0
    assert pipe.stats()["prefix_segments"] == 0


async def test_a_prompt_that_begins_alike_is_not_read_again_until_targets_change(
    pipe: Pipeline,
) -> None:
    async def cached() -> int:
        request = Request(
            model="model", kind="text", prompt=QUESTION * 3, max_tokens=20,
            sampling=Sampling(temperature=0.0, logit_bias=WORDS),
        )  # fmt: skip
        return (await collect(pipe.run(request))).usage.cached_tokens

    assert await cached() == 0
    assert await cached() > 16
    pipe.register.add(ForgetTarget(title="t", phrases=(Phrase(text="Kermorvan"),)))
    assert await cached() == 0
    assert await cached() > 16
    assert pipe.erase("default") > 0
    assert await cached() == 0
