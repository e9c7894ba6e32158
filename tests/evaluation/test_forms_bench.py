"""The bench of forms: fifty schemas, what is forbidden beside them, and what comes of both."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import torch
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from elision.evaluation.benches.forms import Outcome, cases, run, sayable, strings
from elision.middleware.engines.causal import CausalModel
from elision.middleware.interventions.grammar import check, of_schema
from elision.testing import byte_lexicon, byte_tokenizer, tiny_model

SCHEMAS = Path(__file__).parents[1] / "data" / "schemas" / "fifty.jsonl"
HANDFUL = ("one word", "points", "date", "shape", "optional fields", "slug", "step of five")


def test_there_are_fifty_schemas_and_each_can_be_written_by() -> None:
    lexicon, found = byte_lexicon(), cases(SCHEMAS)
    assert len({case.name for case in found}) == 50
    for case in found:
        Draft202012Validator.check_schema(dict(case.schema))
        check(of_schema(case.schema), lexicon, param=case.name)
    assert max(len(line) for line in SCHEMAS.read_text(encoding="utf-8").splitlines()) > 1000


def test_what_is_forbidden_was_said_and_is_not_what_the_schema_insists_on() -> None:
    schema = {"properties": {"who": {}, "mood": {"enum": ["happy", "sad"]}, "v": {"const": "one"}}}
    reply = json.dumps({"who": "The famous Marie", "mood": "happy", "v": "one"})
    assert sayable(schema, reply) == ("famous", "Marie", "happy")
    assert sayable({"const": "Marie"}, '"Marie"') == ("Rosalind Franklin",)
    assert sayable({"type": "string"}, '"half a te') == ("Rosalind Franklin",)
    assert [*strings({"a": ["b", {"c": 1}]})] == ["a", "b", "c"]


def failed(outcomes: list[Outcome]) -> list[tuple[str, str, bool]]:
    return [
        (o.case.name, o.finish, o.is_clean) for o in outcomes if not (o.is_valid and o.is_clean)
    ]


def test_a_model_of_random_weights_satisfies_a_handful_of_schemas_beside_a_guard() -> None:
    tokenizer = byte_tokenizer()
    model = tiny_model(vocab_size=len(tokenizer), eos=257, context=2048)
    chosen = [case for case in cases(SCHEMAS) if case.name in HANDFUL]
    causal = CausalModel(model, tokenizer, name="tiny")
    plain, outcomes = asyncio.run(run(causal, chosen, temperatures=(1.0,)))
    assert (len(plain), len(outcomes)) == (len(HANDFUL), len(HANDFUL))
    assert failed(outcomes) == []


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.timeout(1800)
def test_the_real_model_satisfies_all_fifty_beside_a_guard(smollm2_dir: Path) -> None:
    model = CausalModel.load(smollm2_dir, name="smollm2-135m", dtype=torch.float32)
    _, outcomes = asyncio.run(run(model, cases(SCHEMAS)))
    assert len(outcomes) == 100
    assert failed(outcomes) == []
    assert sum(o.phrases != ("Rosalind Franklin",) for o in outcomes) > 50
