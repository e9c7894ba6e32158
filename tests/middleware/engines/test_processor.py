from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

import elision
from elision.contract import Context, Here, Recipe, Refuse, Stage, Stateless, Verdict
from elision.errors import CapabilityError, ConfigError, EngineError
from elision.middleware.engines.processor import RecipeProcessor, as_logits_processor
from elision.middleware.interventions import (
    EntropyMinimisation,
    FrequencyPresence,
    MinP,
    Repetition,
    TargetEntropy,
    Temperature,
    TopK,
    TopNSigma,
    TopP,
)
from elision.testing import byte_lexicon, byte_tokenizer, tiny_model

EOS, PAD, V = 257, 258, 259
NEUTRAL = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
PROMPTS = ["The oldest bridge of the town", "Tea", "What is it?"]


@dataclass
class Seen:
    """What a `Spy` was told at one position of one row."""

    prompt: tuple[int, ...]
    before: str
    reply: tuple[int, ...]


class Spy:
    """Changes nothing; tells which tokens each row's session has come along."""

    stage: ClassVar[Stage] = Stage.SIGNAL
    rank: ClassVar[int] = 0

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.opened = 0

    def begin(self, context: Context) -> SpySession:
        self.opened += 1
        return SpySession(self, context)


@dataclass(frozen=True)
class SpySession(Stateless):
    spy: Spy
    context: Context
    reply: tuple[int, ...] = ()

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        assert here.position == len(self.reply)
        self.spy.seen.append(Seen(self.context.prompt_ids, self.context.before, self.reply))
        return logits

    def advance(self, token: int) -> SpySession:
        return SpySession(self.spy, self.context, (*self.reply, token))


@pytest.fixture(params=["llama", "qwen2"])
def model(request: pytest.FixtureRequest) -> Any:
    return tiny_model(request.param, vocab_size=V, eos=EOS)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def encoded(prompts: list[str]) -> dict[str, Tensor]:
    """The prompts by hand, longest first or not, padded on the left."""
    ids = [list(prompt.encode()) for prompt in prompts]
    width = max(map(len, ids))
    return {
        "input_ids": torch.tensor([[PAD] * (width - len(row)) + row for row in ids]),
        "attention_mask": torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids]),
    }


def generate(model: Any, prompts: list[str], *, seed: int = 0, n: int = 12, **options: Any) -> Any:
    torch.manual_seed(seed)
    given = {"max_new_tokens": n, "pad_token_id": PAD, **NEUTRAL, **options}
    return model.generate(**encoded(prompts), **given)


def processors(*recipes: Recipe, **options: Any) -> LogitsProcessorList:
    given = {"pad": PAD, "eos": EOS, **options}
    return LogitsProcessorList([as_logits_processor(*recipes, **given)])


# --- The same as transformers ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipes", "theirs"),
    [
        ((Temperature(value=0.7),), {"temperature": 0.7}),
        ((TopK(k=5),), {"top_k": 5}),
        ((TopP(p=0.8),), {"top_p": 0.8}),
        ((MinP(p=0.1),), {"min_p": 0.1}),
        (
            (MinP(p=0.02), TopP(p=0.9), TopK(k=30), Temperature(value=1.3)),
            {"temperature": 1.3, "top_k": 30, "top_p": 0.9, "min_p": 0.02},
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sampling_equals_transformers_own_in_a_padded_batch(
    model: Any, recipes: tuple[Recipe, ...], theirs: dict[str, Any], seed: int
) -> None:
    wanted = generate(model, PROMPTS, seed=seed, do_sample=True, **theirs)
    ours = processors(*recipes)
    got = generate(model, PROMPTS, seed=seed, do_sample=True, logits_processor=ours)
    assert torch.equal(got, wanted)


@pytest.mark.parametrize("sample", [False, True])
def test_a_repetition_penalty_equals_transformers_own(model: Any, sample: bool) -> None:
    ours = processors(Repetition(penalty=1.4))
    for prompt in PROMPTS:  # alone: transformers counts padding among the tokens seen
        wanted = generate(model, [prompt], do_sample=sample, n=30, repetition_penalty=1.4)
        got = generate(model, [prompt], do_sample=sample, n=30, logits_processor=ours)
        assert torch.equal(got, wanted)
    assert not torch.equal(wanted, generate(model, [prompt], do_sample=sample, n=30))


def test_padding_changes_no_row(model: Any) -> None:
    recipes = (Repetition(penalty=1.5), FrequencyPresence(frequency=0.5, presence=0.5))
    together = generate(model, PROMPTS, do_sample=False, logits_processor=processors(*recipes))
    width = len(PROMPTS[0])
    for prompt, row in zip(PROMPTS, together[:, width:].tolist(), strict=True):
        alone = generate(model, [prompt], do_sample=False, logits_processor=processors(*recipes))
        reply = alone[0, len(prompt) :].tolist()
        assert row == reply + [PAD] * (len(row) - len(reply))


@pytest.mark.parametrize("n_beams", [2, 4])
def test_beams_take_their_sessions_along(model: Any, n_beams: int) -> None:
    """Rows change places at every step; our penalty must follow them as theirs does."""
    given = {"do_sample": False, "num_beams": n_beams, "n": 20}
    wanted = generate(model, PROMPTS[:1], repetition_penalty=1.8, **given)
    ours = processors(Repetition(penalty=1.8))
    assert torch.equal(generate(model, PROMPTS[:1], logits_processor=ours, **given), wanted)
    assert not torch.equal(generate(model, PROMPTS[:1], **given), wanted)


def test_sharpened_rows_are_drawn_from_as_the_walk_would(model: Any) -> None:
    """Every row of the batch gets what its recipe makes of that row alone."""
    recipes = (EntropyMinimisation(), TargetEntropy(ratio=0.7), TopNSigma(n=2))
    processor = as_logits_processor(*recipes, pad=PAD, eos=EOS)
    ids = encoded(PROMPTS)["input_ids"]
    scores = torch.randn(3, V, generator=torch.Generator().manual_seed(5)) * 3
    before = scores.clone()
    out = processor(ids, scores)
    assert torch.equal(scores, before)
    for row, got in zip(scores, out, strict=True):
        wanted = row
        for recipe in recipes:
            wanted = recipe.adjust(wanted, Here(wanted))
        assert torch.equal(got, wanted)


# --- Which text a row is -----------------------------------------------------------------------


def test_sessions_see_the_prompt_without_padding_and_every_token_of_the_reply(model: Any) -> None:
    spy = Spy()
    out = generate(
        model,
        PROMPTS,
        do_sample=True,
        n=8,
        logits_processor=processors(spy, lexicon=byte_lexicon()),
    )
    width = len(PROMPTS[0])
    for prompt, row in zip(PROMPTS, out[:, width:].tolist(), strict=True):
        end = row.index(EOS) + 1 if EOS in row else len(row)
        told = [s for s in spy.seen if s.prompt == tuple(prompt.encode())]
        assert [s.reply for s in told] == [tuple(row[:n]) for n in range(end)]
        assert {s.before for s in told} == {prompt}


def test_a_rendered_chat_is_not_what_the_reply_continues() -> None:
    spy = Spy()
    processor = as_logits_processor(spy, lexicon=byte_lexicon(), before="nothing")
    processor(torch.tensor([[72, 105]]), torch.zeros(1, V))
    assert spy.seen == [Seen((72, 105), "", ())]


def feed(processor: RecipeProcessor, *rows: list[int]) -> None:
    processor(torch.tensor(rows), torch.zeros(len(rows), V))


def test_rows_that_change_places_keep_their_replies() -> None:
    spy = Spy()
    processor = as_logits_processor(spy)
    feed(processor, [1, 2], [3, 4])
    feed(processor, [1, 2, 10], [3, 4, 20])
    feed(processor, [3, 4, 20, 21], [3, 4, 20, 22])
    feed(processor, [3, 4, 20, 22, 5], [3, 4, 20, 21, 6])
    assert [(s.prompt, s.reply) for s in spy.seen[-4:]] == [
        ((3, 4), (20, 21)),
        ((3, 4), (20, 22)),
        ((3, 4), (20, 22, 5)),
        ((3, 4), (20, 21, 6)),
    ]
    assert spy.opened == 2


def test_a_dropped_draft_is_gone_back_on() -> None:
    """Assisted generation asks for drafts, then for an earlier position with another token."""
    spy = Spy()
    processor = as_logits_processor(spy)
    for row in ([1], [1, 7], [1, 7, 8], [1, 7, 8, 9], [1, 7, 5], [1, 7, 5, 6]):
        feed(processor, row)
    assert [s.reply for s in spy.seen] == [(), (7,), (7, 8), (7, 8, 9), (7, 5), (7, 5, 6)]
    assert spy.opened == 1


@pytest.mark.parametrize(
    "prompt",
    [[1, 2, 3], [1, 2], [1, 2, 9, 4], [8, 2, 3], [1, 2, 3, 10, 11, 12, 13], [5]],
    ids=["the same", "shorter", "another", "as long", "the whole talk and more", "one token"],
)
def test_a_prompt_that_does_not_go_on_begins_a_new_generation(prompt: list[int]) -> None:
    spy = Spy()
    processor = as_logits_processor(spy)
    for row in ([1, 2, 3], [1, 2, 3, 10], [1, 2, 3, 10, 11]):
        feed(processor, row)
    feed(processor, prompt)
    assert (spy.seen[-1].prompt, spy.seen[-1].reply) == (tuple(prompt), ())
    feed(processor, [*prompt, 6])
    assert (spy.seen[-1].prompt, spy.seen[-1].reply) == (tuple(prompt), (6,))


def test_one_row_that_does_not_go_on_makes_all_of_them_new() -> None:
    spy = Spy()
    processor = as_logits_processor(spy)
    feed(processor, [1, 2], [3, 4])
    feed(processor, [1, 2, 5], [3, 9, 5])
    assert [(s.prompt, s.reply) for s in spy.seen[-2:]] == [((1, 2, 5), ()), ((3, 9, 5), ())]


def test_a_prompt_that_is_a_reply_and_one_token_more_goes_on_unless_told() -> None:
    """The one case that looks the same from inside; `reset` tells."""
    spy = Spy()
    processor = as_logits_processor(spy)
    feed(processor, [1, 2])
    feed(processor, [1, 2, 3])
    assert spy.seen[-1].reply == (3,)
    processor.reset()
    feed(processor, [1, 2, 3, 4])
    assert (spy.seen[-1].prompt, spy.seen[-1].reply) == ((1, 2, 3, 4), ())


def test_one_processor_serves_many_generations(model: Any) -> None:
    ours = processors(Repetition(penalty=1.5))
    for prompt in [*PROMPTS, *PROMPTS]:
        fresh = processors(Repetition(penalty=1.5))
        again = generate(model, [prompt], do_sample=False, logits_processor=ours)
        assert torch.equal(
            again, generate(model, [prompt], do_sample=False, logits_processor=fresh)
        )


# --- Ends --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Allow(Stateless):
    """Leaves some tokens, then none; a guard at its wits' end."""

    tokens: tuple[int, ...]
    left: int
    stage: ClassVar[Stage] = Stage.HARD_MASK

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        out = torch.full_like(logits, -torch.inf)
        if self.left:
            out[list(self.tokens)] = logits[list(self.tokens)]
        return out

    def advance(self, token: int) -> Allow:
        return Allow(tokens=self.tokens, left=self.left - 1)


def test_a_row_in_which_no_token_is_left_ends(model: Any) -> None:
    ours = processors(Allow(tokens=(65, 66), left=3))
    out = generate(model, PROMPTS, do_sample=True, logits_processor=ours)
    for row in out[:, len(PROMPTS[0]) :].tolist():
        assert set(row[:3]) <= {65, 66}
        assert row[3:] == [EOS]


def test_without_a_known_end_such_a_row_is_an_error() -> None:
    processor = as_logits_processor(Allow(tokens=(65,), left=0))
    with pytest.raises(EngineError, match="pass eos="):
        feed(processor, [72])


def test_behind_its_end_a_row_is_left_alone() -> None:
    spy = Spy()
    processor = as_logits_processor(spy, eos=[EOS, 9], pad=PAD)
    for row in ([1], [1, 9], [1, 9, PAD]):
        feed(processor, row)
    assert [s.reply for s in spy.seen] == [()]


class Judge(Stateless):
    """Refuses whatever is said."""

    stage: ClassVar[Stage] = Stage.HARD_MASK
    refused = False

    @property
    def verdict(self) -> Verdict:
        return Refuse()

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        return logits


def test_a_verdict_stops_the_generation_because_nothing_can_be_taken_back() -> None:
    processor = as_logits_processor(Judge())
    with pytest.raises(CapabilityError, match="REWIND"):
        feed(processor, [72])


# --- The rest ----------------------------------------------------------------------------------


class Reads(Stateless):
    """Reads what tokens write."""

    stage: ClassVar[Stage] = Stage.HARD_MASK

    def begin(self, context: Context) -> Reads:
        assert context.lexicon.bytes_of(65) == b"A"
        assert len(context.lexicon) >= context.vocab_size
        return self

    def adjust(self, logits: Tensor, here: Here) -> Tensor:
        return logits


def test_a_recipe_that_reads_text_is_not_given_an_empty_one() -> None:
    with pytest.raises(ConfigError, match="pass tokenizer="):
        feed(as_logits_processor(Reads()), [72])


@pytest.mark.parametrize("vocab_size", [259, 300])
def test_a_tokenizer_brings_lexicon_pad_and_eos(vocab_size: int) -> None:
    spy = Spy()
    processor = as_logits_processor(Reads(), spy, tokenizer=byte_tokenizer())
    ids = torch.tensor([[PAD, PAD, 72, 105]])
    processor(ids, torch.zeros(1, vocab_size))
    assert spy.seen == [Seen((72, 105), "Hi", ())]
    ended = torch.tensor([[PAD, PAD, 72, 105, EOS]])
    processor(ended, torch.zeros(1, vocab_size))
    assert len(spy.seen) == 1


def test_scores_come_back_as_they_were_where_nothing_acts() -> None:
    scores = torch.zeros(2, V)
    processor = as_logits_processor(EntropyMinimisation(threshold=100), Temperature(value=1))
    assert processor(torch.tensor([[1], [2]]), scores) is scores


def test_scores_keep_their_number_format() -> None:
    scores = torch.randn(2, V).bfloat16()
    out = as_logits_processor(EntropyMinimisation())(torch.tensor([[1], [2]]), scores)
    assert out.dtype == torch.bfloat16
    assert not torch.equal(out, scores)


def test_it_is_a_plain_logits_processor_and_on_the_face() -> None:
    assert isinstance(elision.as_logits_processor(TopK(k=1)), LogitsProcessor)
