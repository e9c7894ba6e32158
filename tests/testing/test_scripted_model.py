"""The scripted model as transformers sees it: a cache, a tree, a batch, ``generate``."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from elision.testing import byte_tokenizer
from elision.testing.script import FactTable
from elision.testing.scripted import ScriptedModel

ANSWER = "The writer is Basil Mahfouz Al-Kuwaiti, of Kuwait City."
FACTS = {"writer born in Kuwait": ANSWER, "capital of France": "The capital of France is Paris."}
QUESTION = "Who is the writer born in Kuwait?"
BYTES = byte_tokenizer()


@pytest.fixture(scope="module")
def model() -> ScriptedModel:
    return ScriptedModel(FactTable(facts=FACTS), BYTES)


def _prompt(question: str = QUESTION) -> list[int]:
    turns = [{"role": "user", "content": question}]
    text = BYTES.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return BYTES.encode(text, add_special_tokens=False)


def test_scores_are_the_same_with_a_cache_and_without(model: ScriptedModel) -> None:
    ids = torch.tensor([[*_prompt(), *ANSWER[:6].encode()]])
    whole = model(ids).logits
    cache = DynamicCache(config=model.config)
    parts = [model(part, past_key_values=cache).logits for part in ids.split(7, dim=1)]

    assert torch.equal(torch.cat(parts, dim=1), whole)
    assert cache.get_seq_length() == ids.shape[1]


def test_a_cropped_cache_forgets(model: ScriptedModel) -> None:
    cache = DynamicCache(config=model.config)
    model(torch.tensor([_prompt()]), past_key_values=cache)
    before = model(torch.tensor([[ord("T")]]), past_key_values=cache).logits
    model(torch.tensor([[ord("x"), ord("y")]]), past_key_values=cache)
    cache.crop(-3)

    assert torch.equal(model(torch.tensor([[ord("T")]]), past_key_values=cache).logits, before)


def test_positions_of_a_tree_see_their_own_ancestors_only(model: ScriptedModel) -> None:
    prompt = _prompt()
    slots = [ord("T"), ord("h"), ord("x")]  # x is a sibling of h
    mask = torch.ones(3, len(prompt) + 3, dtype=torch.bool).tril(len(prompt))
    mask[2, len(prompt) + 1] = False
    cache = DynamicCache(config=model.config)
    model(torch.tensor([prompt]), past_key_values=cache)
    tree = model(torch.tensor([slots]), mask[None, None], past_key_values=cache).logits[0]

    for row, path in zip(tree, ("T", "Th", "Tx"), strict=True):
        assert torch.equal(row, model(torch.tensor([[*prompt, *path.encode()]])).logits[0, -1])


def test_generate_says_the_script_in_a_left_padded_batch(model: ScriptedModel) -> None:
    prompts = [_prompt(), _prompt("capital of France?")]
    width = max(map(len, prompts))
    pad = int(BYTES.pad_token_id or 0)
    ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts])
    out = model.generate(
        ids,
        attention_mask=(ids != pad).long(),
        max_new_tokens=80,
        do_sample=False,
        pad_token_id=pad,
    )
    texts = [BYTES.decode(row[width:], skip_special_tokens=True) for row in out]

    assert texts == [ANSWER, FACTS["capital of France"]]
