"""Other scores inside ``generate``, against the slow oracle: all anew, no cache, no padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    Lfm2Config,
    Lfm2ForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    StaticCache,
)

from elision.contract import Capability, Context, Recipe
from elision.errors import CapabilityError, ConfigError, RequestError
from elision.lexicon import TokenizerLexicon
from elision.middleware.engines.processor import RecipeProcessor, as_logits_processor
from elision.middleware.engines.texts import Texts
from elision.middleware.interventions.contrast import ContextAware, ContextualContrast
from elision.middleware.interventions.difference import (
    ContrastiveDecoding,
    DeltaUnlearning,
    LogitDifference,
)
from elision.middleware.interventions.guidance import Guidance
from elision.middleware.interventions.mti import MinimalIntervention
from elision.middleware.interventions.views import After, LastToken, System, Tokens, Without
from elision.testing import byte_tokenizer, tiny_model

from .slow_branches import slow_adjusted, slow_scores

BOS, EOS, PAD, V = 256, 257, 258, 259
TOKENIZER = byte_tokenizer()
PASSAGE = "The ferry sails at six. "
PROMPTS = [f"{PASSAGE}When?", f"Note: {PASSAGE}The ferry sails", f"{PASSAGE}It"]
NEUTRAL = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "pad_token_id": PAD}
MTI = MinimalIntervention(tau=2.9, negative="OUTPUT ERROR")
RECIPES: dict[str, tuple[Recipe, ...]] = {
    "mti": (MTI,),
    "mti-random": (MinimalIntervention(gate="random", share=0.5),),
    "mti-lagging": (MinimalIntervention(tau=3.0, branch="prompt", negative="Wrong."),),
    "cfg": (Guidance(scale=1.5),),
    "cfg-negative": (Guidance(scale=2.0, other=System("Nothing but noise"), plausibility=0.05),),
    "cad": (ContextAware(other=Without(PASSAGE)),),
    "contrast": (ContextualContrast(towards=After("Clearly: "), away=Without(PASSAGE)),),
    "cd": (ContrastiveDecoding(assistant="small", temperature=0.5),),
    "uld": (LogitDifference(assistant="small"),),
    "delta": (DeltaUnlearning(before="small", after="other"),),
    "all": (
        MTI,
        Guidance(scale=1.5, other=Tokens((5, 6, 7))),
        ContextAware(other=Without(PASSAGE)),
        LogitDifference(assistant="small"),
    ),
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def sliding_model() -> Any:
    """Every layer attends to a window of 16 tokens."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = MistralConfig(
            vocab_size=V,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            sliding_window=16,
            initializer_range=0.25,
            bos_token_id=None,
            eos_token_id=EOS,
            pad_token_id=None,
        )
        return MistralForCausalLM(config).eval()


MODELS: dict[str, Callable[[], Any]] = {
    "full": lambda: tiny_model("llama", vocab_size=V, eos=EOS),
    "sliding": sliding_model,
    "mixed": lambda: tiny_model("gemma3", vocab_size=V, eos=EOS, context=64),
}
_BUILT: dict[str, Any] = {}


def built(name: str) -> Any:
    return _BUILT.setdefault(name, MODELS[name]())


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    return built(request.param)


ASSISTANTS = {
    "small": tiny_model("llama", vocab_size=V, seed=5, n_layers=1),
    "other": tiny_model("qwen2", vocab_size=V, seed=6, n_layers=1),
}


def encoded(prompts: list[str]) -> dict[str, Tensor]:
    ids = [list(prompt.encode()) for prompt in prompts]
    width = max(map(len, ids))
    return {
        "input_ids": torch.tensor([[PAD] * (width - len(row)) + row for row in ids]),
        "attention_mask": torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids]),
    }


def processor(model: Any, *recipes: Recipe, **options: Any) -> RecipeProcessor:
    given = {"tokenizer": TOKENIZER, "model": model, "assistants": ASSISTANTS, "seed": 3}
    return as_logits_processor(*recipes, **{**given, **options})


@dataclass
class Recorded:
    """Passes on what a processor says, and keeps it."""

    inner: RecipeProcessor
    steps: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        out = self.inner(input_ids, scores)
        self.steps.append((input_ids.clone(), out.clone()))
        return out


def generate(
    model: Any, prompts: list[str], recorded: Any, *, seed: int = 2, n: int = 12, **options: Any
) -> Tensor:
    torch.manual_seed(seed)
    given = {**encoded(prompts), "max_new_tokens": n, "do_sample": True, **NEUTRAL, **options}
    out: Tensor = model.generate(logits_processor=[recorded], **given)
    return out


@cache
def texts_of(model: Any) -> Texts:
    return Texts(TOKENIZER, model, "prompt")


@cache
def context_of(model: Any, prompt: tuple[int, ...]) -> Context:
    return Context(
        lexicon=TokenizerLexicon.of(TOKENIZER),  # type: ignore[arg-type]
        vocab_size=V,
        prompt_ids=prompt,
        eos=frozenset({EOS}),
        seed=3,
        capabilities=Capability.LOGITS | Capability.BRANCH,
        assistants=frozenset(ASSISTANTS),
        reader=texts_of(model).of(prompt),
    )


def check(model: Any, recipes: tuple[Recipe, ...], recorded: Recorded, *, every: int = 1) -> int:
    """Compare what was recorded with the oracle; return how many positions that were."""
    n_prompt, n_checked = recorded.steps[0][0].shape[1], 0
    for ids, scores in recorded.steps[::every]:
        for text, row in zip(ids.tolist(), scores, strict=True):
            reply = tuple(text[n_prompt:])
            if EOS in reply:
                continue
            prompt = tuple(token for token in text[:n_prompt] if token != PAD)
            context = context_of(model, prompt)
            want = slow_adjusted(model, recipes, context, reply, ASSISTANTS)
            got, want = row.log_softmax(-1), want.log_softmax(-1)
            assert torch.equal(got.isneginf(), want.isneginf())
            torch.testing.assert_close(got, want, atol=1e-4, rtol=0)
            assert int(got.argmax()) == int(want.argmax())
            n_checked += 1
    return n_checked


# --- The same as the slow oracle -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["mti", "cfg", "cad", "uld"])
def test_a_padded_batch_gets_what_each_row_gets_recomputed_alone(model: Any, name: str) -> None:
    kv = DynamicCache(config=model.config)
    recorded = Recorded(processor(model, *RECIPES[name], cache=kv))
    generate(model, PROMPTS, recorded, n=13, past_key_values=kv)
    assert check(model, RECIPES[name], recorded) >= 34  # three models: over a hundred positions


@pytest.mark.parametrize("name", sorted(RECIPES.keys() - {"mti", "cfg", "cad", "uld"}))
def test_so_it_does_under_every_other_mixer_and_under_several(name: str) -> None:
    model = built("mixed")
    kv = DynamicCache(config=model.config)
    recorded = Recorded(processor(model, *RECIPES[name], cache=kv))
    generate(model, PROMPTS, recorded, n=13, past_key_values=kv)
    assert check(model, RECIPES[name], recorded, every=4) >= 8


def test_greedy_replies_are_those_of_the_oracle(model: Any) -> None:
    kv, recipes = DynamicCache(config=model.config), RECIPES["all"]
    ours = processor(model, *recipes, cache=kv)
    out = generate(model, PROMPTS, ours, do_sample=False, n=6, past_key_values=kv)
    plain = generate(model, PROMPTS, lambda ids, scores: scores, do_sample=False, n=6)
    assert not torch.equal(out, plain)
    for prompt, row in zip(PROMPTS, out[:, -6:].tolist(), strict=True):
        ids, reply = tuple(prompt.encode()), ()
        while len(reply) < 6 and EOS not in reply:
            scores = slow_adjusted(model, recipes, context_of(model, ids), reply, ASSISTANTS)
            reply = (*reply, int(scores.argmax()))
        assert row == [*reply, *[PAD] * (6 - len(reply))]


@pytest.mark.parametrize("name", ["mti-lagging", "all"])
@pytest.mark.parametrize("options", [{"num_beams": 3}, {"num_return_sequences": 3}], ids=str)
def test_rows_that_fork_and_change_places_get_their_own(
    model: Any, name: str, options: dict[str, int]
) -> None:
    kv = DynamicCache(config=model.config)
    recorded = Recorded(processor(model, *RECIPES[name], cache=kv))
    sampled = {"do_sample": "num_beams" not in options, **options}
    if "num_beams" in options:
        sampled |= {"temperature": None, "top_k": None, "top_p": None}
    generate(model, PROMPTS[:2], recorded, past_key_values=kv, **sampled)
    assert check(model, RECIPES[name], recorded, every=5) >= 12
    if "num_beams" in options:
        pairs = zip(recorded.steps, recorded.steps[1:], strict=False)
        assert any(not torch.equal(old, new[:, :-1]) for (old, _), (new, _) in pairs)


@pytest.mark.parametrize("scale", [0.0, 1.5, 3.0])
@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("negative", [None, (70, 71, 72)])
def test_guidance_equals_transformers_own_for_one_row(
    scale: float, sample: bool, negative: tuple[int, ...] | None
) -> None:
    model = built("full")
    theirs: dict[str, Any] = {"guidance_scale": scale}
    if negative:
        theirs["negative_prompt_ids"] = torch.tensor([negative])
    torch.manual_seed(1)
    given = {**encoded(PROMPTS[:1]), "max_new_tokens": 16, "do_sample": sample, **NEUTRAL}
    if not sample:
        given |= {"temperature": None, "top_k": None, "top_p": None}
    want = model.generate(**given, **theirs, return_dict_in_generate=True, output_scores=True)
    other = Tokens(negative) if negative else LastToken()
    recorded = Recorded(processor(model, Guidance(scale=scale, other=other)))
    torch.manual_seed(1)
    assert torch.equal(model.generate(logits_processor=[recorded], **given), want.sequences)
    for (_, ours), scores in zip(recorded.steps, want.scores, strict=True):
        torch.testing.assert_close(ours.log_softmax(-1), scores.log_softmax(-1), atol=1e-4, rtol=0)


# --- What it costs, and leaves --------------------------------------------------------------------


def count_forwards(model: Any, call: Callable[[], Any]) -> int:
    n = 0

    def count(*_: Any) -> None:
        nonlocal n
        n += 1

    handle = model.register_forward_hook(count)
    try:
        call()
    finally:
        handle.remove()
    return n


def test_a_suffix_is_read_where_a_row_hesitates_once_for_all_rows(model: Any) -> None:
    kv, hesitant = DynamicCache(config=model.config), list[bool]()
    tau = texts_of(model).of(()).entropy_exceeded(0.15)
    ours = processor(model, MinimalIntervention(tau=tau), cache=kv)

    def spy(ids: Tensor, scores: Tensor) -> Tensor:
        entropies = torch.distributions.Categorical(logits=scores).entropy()
        is_live = ~(ids == EOS).any(-1)
        hesitant.append(bool((entropies[is_live] > tau).any()))
        return ours(ids, scores)

    n = count_forwards(model, lambda: generate(model, PROMPTS, spy, n=20, past_key_values=kv))
    assert n == len(hesitant) + sum(hesitant)
    assert 0 < sum(hesitant) < len(hesitant)


def test_where_no_row_hesitates_nothing_is_read_and_nothing_changes(model: Any) -> None:
    kv = DynamicCache(config=model.config)
    ours = processor(model, MinimalIntervention(tau=50.0), cache=kv)
    seen: list[bool] = []

    def spy(ids: Tensor, scores: Tensor) -> Tensor:
        out = ours(ids, scores)
        seen.append(out is scores)
        return out

    n = count_forwards(model, lambda: generate(model, PROMPTS, spy, past_key_values=kv))
    assert n == len(seen)
    assert all(seen)


def test_rows_behind_other_prompts_share_a_forward(model: Any) -> None:
    ours = Recorded(processor(model, Guidance()))
    generate(model, PROMPTS, ours, n=2)  # whether rows can share is found out once
    n = count_forwards(model, lambda: generate(model, PROMPTS, ours, n=10))
    assert n == 10 + 3 + 9  # the model's own; each row's last token; all rows at each later step


def test_the_cache_is_left_as_it_was_to_the_last_bit(model: Any) -> None:
    kv = DynamicCache(config=model.config)
    given = encoded(PROMPTS)
    ours = processor(model, MinimalIntervention(gate="always"), cache=kv)
    with torch.no_grad():
        out = model(**given, past_key_values=kv, use_cache=True)
        before = [(layer.keys.clone(), layer.values.clone()) for layer in kv.layers]
        adjusted = ours(given["input_ids"], out.logits[:, -1].float())
    assert not torch.equal(adjusted, out.logits[:, -1])
    assert int(kv.get_seq_length()) == given["input_ids"].shape[1]
    for layer, (keys, values) in zip(kv.layers, before, strict=True):
        assert torch.equal(layer.keys, keys)
        assert torch.equal(layer.values, values)
        assert not getattr(layer, "record_past", False)


def conv_model() -> Any:
    """Attention and short convolutions in turn: what a convolution has read cannot be cut off."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = Lfm2Config(
            vocab_size=V,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            layer_types=["conv", "full_attention"],
            initializer_range=0.25,
            bos_token_id=None,
            eos_token_id=EOS,
            pad_token_id=None,
        )
        return Lfm2ForCausalLM(config).eval()


@pytest.mark.parametrize(
    ("make", "new_cache"),
    [
        (conv_model, lambda config: DynamicCache(config=config)),
        (MODELS["full"], lambda config: StaticCache(config=config, max_cache_len=96)),
    ],
    ids=["convolutions", "static"],
)
def test_a_cache_that_cannot_be_cut_back_is_copied(
    make: Callable[[], Any], new_cache: Callable[[Any], Any]
) -> None:
    model = make()
    recipes = (MTI, Guidance(scale=1.5, other=Tokens((5, 6, 7))))
    kv = new_cache(model.config)
    recorded = Recorded(processor(model, *recipes, cache=kv))
    generate(model, PROMPTS[:1], recorded, n=8, past_key_values=kv, disable_compile=True)
    assert check(model, recipes, recorded) >= 6


# --- One generation after the other ---------------------------------------------------------------


def test_one_processor_serves_many_generations() -> None:
    model = built("sliding")
    kv = DynamicCache(config=model.config)
    ours = processor(model, *RECIPES["all"], cache=kv)
    for n in (2, 3, 1):
        recorded = Recorded(ours)
        generate(model, PROMPTS[:n], recorded, n=4, past_key_values=kv)
        assert check(model, RECIPES["all"], recorded) >= 2 * n
        kv.reset()
        ours.reset()


def test_a_dropped_draft_is_gone_back_on() -> None:
    """Assisted generation asks for drafts, then for an earlier position with another token."""
    model, recipes = built("full"), RECIPES["cfg"]
    recorded = Recorded(processor(model, *recipes))
    prompt = tuple(PROMPTS[0].encode())
    for reply in ((), (7,), (7, 8), (7, 8, 9), (7, 5), (7, 5, 6), (4,)):
        scores = slow_scores(model, prompt + reply)
        recorded(torch.tensor([prompt + reply]), scores[None])
    assert check(model, recipes, recorded) == 7


# --- What is refused ------------------------------------------------------------------------------


def ask(recipe: Recipe, **options: Any) -> None:
    ours = as_logits_processor(recipe, tokenizer=TOKENIZER, **options)
    ours(torch.tensor([[72, 105]]), torch.zeros(1, V))


@pytest.mark.parametrize(
    ("recipe", "what"),
    [
        (MTI, "model= and cache="),
        (Guidance(), "model="),
        (ContextAware(other=Tokens((1, 2))), "model="),
    ],
    ids=["suffix", "guidance", "context"],
)
def test_without_what_it_takes_a_recipe_is_refused_and_told_what_to_pass(
    recipe: Recipe, what: str
) -> None:
    with pytest.raises(CapabilityError, match=f"without {what}"):
        ask(recipe)


def test_a_suffix_without_the_cache_is_refused() -> None:
    with pytest.raises(CapabilityError, match="without model= and cache="):
        ask(MTI, model=built("full"))


def test_an_assistant_needs_no_model_beside_it_but_must_be_there() -> None:
    ask(LogitDifference(assistant="small"), assistants=ASSISTANTS)
    with pytest.raises(RequestError, match="names an assistant that is not loaded"):
        ask(LogitDifference(assistant="large"), assistants=ASSISTANTS)


def test_an_assistant_of_another_vocabulary_is_refused() -> None:
    small = {"small": tiny_model("llama", vocab_size=V + 5, n_layers=1)}
    with pytest.raises(ConfigError, match="264 tokens and the model 259"):
        ask(LogitDifference(assistant="small"), assistants=small)


def test_a_cache_that_generate_does_not_use_is_refused() -> None:
    model = built("full")
    ours = processor(model, MinimalIntervention(gate="always"), cache=DynamicCache())
    with pytest.raises(ConfigError, match=r"holds 0 tokens per row.*past_key_values"):
        generate(model, PROMPTS, ours)


def test_a_neutral_recipe_needs_nothing() -> None:
    ask(Guidance(scale=1.0))


# --- What is made of text -------------------------------------------------------------------------


def chat(user: str) -> tuple[int, ...]:
    ids = TOKENIZER.apply_chat_template(
        [{"role": "user", "content": user}], add_generation_prompt=True, return_dict=False
    )
    return tuple(ids)


def test_a_raw_prompt_is_written_anew_and_a_rendered_chat_loses_no_more_than_a_passage() -> None:
    context = context_of(built("full"), tuple(PROMPTS[0].encode()))
    assert Without(PASSAGE).ids(context) == tuple(b"When?")
    assert System("No.").ids(context) == tuple(b"No.")
    prompt = chat(PROMPTS[0])
    reader = Texts(TOKENIZER, None, "nothing").of(prompt)
    rendered = Context(lexicon=context.lexicon, vocab_size=V, prompt_ids=prompt, reader=reader)
    assert Without(PASSAGE).ids(rendered) == chat("When?")
    for view in (System("No."), After("No."), Without(TOKENIZER.decode(prompt[:8]))):
        with pytest.raises(RequestError, match="give it as tokens"):
            view.ids(rendered)


def test_a_share_of_positions_is_told_by_the_models_own_entropies(model: Any) -> None:
    reader = Texts(TOKENIZER, model, "prompt").of((1, 2))
    taus = [reader.entropy_exceeded(share) for share in (0.9, 0.5, 0.08)]
    assert 0 < taus[0] < taus[1] < taus[2] < 5.6  # nats; ln 259 is 5.56
    with pytest.raises(ConfigError, match="pass model="):
        Texts(TOKENIZER, None, "prompt").of((1, 2)).entropy_exceeded(0.1)


def test_a_share_is_what_minimal_intervention_goes_by_unless_told() -> None:
    model = built("full")
    kv = DynamicCache(config=model.config)
    recipes = (MinimalIntervention(share=0.4),)
    recorded = Recorded(processor(model, *recipes, cache=kv))
    generate(model, PROMPTS, recorded, n=6, past_key_values=kv)
    assert check(model, recipes, recorded) >= 12
