"""What a real vLLM writes under our orders is what the local engine writes: float32, greedy."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from elision.contract import Completion, Request, collect
from elision.errors import CapabilityError
from elision.evaluation.serving.parity import Compared, compared
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.local import LocalEngine
from elision.middleware.pipeline import Pipeline
from elision.testing.laws import check_never_leaks

from .fleets import NAME, QUESTIONS, TARGETS, asked, fleet, registered
from .servers import Server

pytestmark = [pytest.mark.vllm, pytest.mark.model]

SECRETS = (*TARGETS["a"], *TARGETS["b"])
MTI = {"guidance": {"mti": {"tau": 1.0}}}


@pytest.fixture(scope="module")
def local(smollm2_dir: Path) -> Iterator[LocalEngine]:
    engine = LocalEngine(CausalModel.load(smollm2_dir, name=NAME, dtype=torch.float32))
    yield engine
    asyncio.run(engine.aclose())


class Kept:
    """An engine that outlives the pipelines it is lent to."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def aclose(self) -> None:
        """Leave it open."""


def here(local: LocalEngine, home: Path, *secrets: str) -> Pipeline:
    """Return a pipeline over *local*; without *secrets* it keeps none."""
    register = registered(home, {"default": secrets})
    return Pipeline(engines={NAME: Kept(local)}, register=register)


# --- texts ---------------------------------------------------------------------------------------


async def pairs(
    own: Pipeline, there: Pipeline, profile: str, questions: Sequence[str] = QUESTIONS[:3]
) -> list[Compared]:
    """Return how what *there* writes compares to what *own* writes; all are asked at once."""

    async def one(question: str) -> Compared:
        found = compared(own, there, [question], profile=profile, n_tokens=24)
        [pair] = [pair async for pair in found]
        return pair

    return await asyncio.gather(*map(one, questions))


@pytest.mark.parametrize(
    ("profile", "secrets"),
    [("plain", ()), ("guarded", SECRETS), ("focused", ()), ("focused", SECRETS)],
    ids=["plain", "guarded", "focused", "focused-masked"],
)
async def test_it_writes_what_the_local_engine_writes(
    profile: str, secrets: tuple[str, ...], plugged: Server, local: LocalEngine, tmp_path: Path
) -> None:
    own = here(local, tmp_path / "here", *secrets)
    register = registered(tmp_path / "there", {"default": secrets})
    async with fleet(plugged, register) as there:
        found = await pairs(own, there, profile)
    await own.aclose()
    assert all(pair.agrees for pair in found), [pair.margin for pair in found]
    assert any(pair.is_equal for pair in found)


async def test_the_targets_are_what_it_would_say(
    plugged: Server, local: LocalEngine, tmp_path: Path
) -> None:
    own = here(local, tmp_path / "here")
    free = [await collect(own.run(asked(one), profile="plain")) for one in QUESTIONS[:4]]
    await own.aclose()
    said = " ".join(done.text for done in free)
    assert sum(secret in said for secret in SECRETS) >= 5
    async with fleet(plugged, registered(tmp_path / "there", {"default": SECRETS})) as there:
        runs = (there.run(asked(it, logprobs=5), profile="plain") for it in QUESTIONS[:4])
        for done, before in zip(await asyncio.gather(*map(collect, runs)), free, strict=True):
            check_never_leaks(done, SECRETS)
            assert done.choices[0].finish == before.choices[0].finish or done.text != before.text
            assert done.report.get("n_rewinds", 0) == 0, "the mask alone keeps it out"


# --- scores --------------------------------------------------------------------------------------


def scores(done: Completion) -> list[dict[bytes, float]]:
    """Return what each place tells: its likeliest tokens, with their log-probabilities."""
    return [{one.data: one.logprob for one in entry.top} for entry in done.choices[0].logprobs]


@pytest.mark.parametrize("profile", ["plain", "focused"])
async def test_its_log_probabilities_are_those_behind_masks_and_shaping(
    profile: str, plugged: Server, local: LocalEngine, tmp_path: Path
) -> None:
    request = asked(QUESTIONS[3], logprobs=5)
    own = here(local, tmp_path / "here", *SECRETS)
    want = await collect(own.run(request, profile=profile))
    unshaped = await collect(own.run(request, profile="plain"))
    await own.aclose()
    async with fleet(plugged, registered(tmp_path / "there", {"default": SECRETS})) as there:
        got = await collect(there.run(request, profile=profile))
    assert got.text == want.text
    assert len(scores(got)) == len(scores(want)) > 10
    for told, known in zip(scores(got), scores(want), strict=True):
        shared = told.keys() & known.keys()
        assert len(shared) >= min(4, len(known))
        likely = [one for one in shared if known[one] > -15]
        assert [told[one] for one in likely] == pytest.approx(
            [known[one] for one in likely], abs=1e-3
        )
    was_shaped = [entry.logprob for entry in want.choices[0].logprobs] != pytest.approx(
        [entry.logprob for entry in unshaped.choices[0].logprobs], abs=0.05
    )
    assert was_shaped == (profile == "focused")


# --- MTI -----------------------------------------------------------------------------------------


async def goes_on(own: Pipeline, there: Server, request: Request, first: bytes) -> Completion:
    """Return what is written here behind the prompt of *request* and the token *first*."""
    told = there.ask("/tokenize", {"messages": [*request.messages]}).body["tokens"]
    begun = {"prompt": first.decode(), "add_special_tokens": False}
    [token] = there.ask("/tokenize", begun).body["tokens"]
    prompt, n_tokens = (*told, token), (request.max_tokens or 0) - 1
    raw = replace(request, kind="text", messages=(), prompt=prompt, max_tokens=n_tokens)
    return await collect(own.run(raw, profile="plain"))


@pytest.mark.parametrize("secrets", [(), SECRETS], ids=["plain", "masked"])
async def test_mti_guides_as_here_from_the_second_token(
    secrets: tuple[str, ...], proposing: Server, local: LocalEngine, tmp_path: Path
) -> None:
    own = here(local, tmp_path / "here", *secrets)

    async def is_guided(there: Pipeline, question: str) -> bool:
        request = asked(question, options=MTI, logprobs=0)
        got, free = await asyncio.gather(
            collect(there.run(request, profile="plain")),
            collect(there.run(asked(question), profile="plain")),
        )
        first = got.choices[0].logprobs[0]
        want = await goes_on(own, proposing, request, first.data)
        assert got.text == first.token + want.text
        check_never_leaks(got, secrets)
        return got.text != free.text

    async with fleet(proposing, registered(tmp_path / "there", {"default": secrets})) as there:
        guided = await asyncio.gather(*(is_guided(there, one) for one in QUESTIONS[:3]))
    await own.aclose()
    assert any(guided)


async def test_under_our_proposer_it_writes_what_the_local_engine_writes(
    proposing: Server, local: LocalEngine, tmp_path: Path
) -> None:
    own = here(local, tmp_path / "here", *SECRETS)
    async with fleet(proposing, registered(tmp_path / "there", {"default": SECRETS})) as there:
        assert all(pair.agrees for pair in await pairs(own, there, "focused"))
    await own.aclose()


async def test_a_server_without_our_proposer_says_that_it_cannot_guide(
    plugged: Server, tmp_path: Path
) -> None:
    async with fleet(plugged, registered(tmp_path, {})) as there:
        with pytest.raises(CapabilityError, match=r"(?i)mti"):
            await collect(there.run(asked(options=MTI), profile="plain"))
