"""Replies held to a schema: whether they satisfy it beside an active guard, and what that costs."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch

from elision.contract import (
    Choice,
    Context,
    Here,
    Plan,
    Recipe,
    Request,
    Sampling,
    Session,
    collect,
    in_order,
)
from elision.evaluation.bench import Setup
from elision.evaluation.benches.model import bench_model
from elision.evaluation.figures import Figure, Goal, of
from elision.guards.guard import Guard
from elision.guards.phrases.normal import N
from elision.guards.targets import ForgetTarget, Phrase
from elision.middleware.engines.causal import CausalModel
from elision.middleware.engines.local import LocalEngine
from elision.middleware.interventions.grammar import Grammar, in_json, of_schema, pruned
from elision.middleware.profiles import sampling_recipes

SCHEMAS: Final = Path(__file__).parents[4] / "tests" / "data" / "schemas" / "fifty.jsonl"
"""Of the repository; an installed package has none, and measures the cost alone."""
N_TOKENS: Final = 512
IN_TIME: Final = 256
_WORD: Final = re.compile(r"[^\W\d_]{4,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A schema and a prompt for it.

    Attributes:
        name: For reports.
        prompt: The user's message.
        schema: What the reply must satisfy.
    """

    name: str
    prompt: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a case with the guard active.

    Attributes:
        case: Which.
        phrases: What was forbidden: words that the model said without the guard.
        finish: Why the reply ended.
        is_valid: Whether it is JSON that satisfies the schema.
        is_clean: Whether it holds none of the phrases, as it stands and parsed.
    """

    case: Case
    phrases: tuple[str, ...]
    finish: str
    is_valid: bool
    is_clean: bool


def cases(file: Path = SCHEMAS) -> list[Case]:
    """Return the schemas of *file*, one JSON object a line."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return [Case(**json.loads(line)) for line in lines]


def measure(setup: Setup) -> Iterator[Figure]:
    """Yield the figures of replies that have a form."""
    model = bench_model(setup)
    torch.set_num_threads(1)
    if SCHEMAS.exists():
        chosen = cases()[:: setup.repeats(1, 7)]
        yield from _satisfied(asyncio.run(run(model, chosen)), model)
    yield from _cost(model, setup)


# --- replies -------------------------------------------------------------------------------------


async def run(
    model: CausalModel, chosen: Sequence[Case], *, temperatures: Sequence[float] = (0.0, 1.0)
) -> tuple[list[Choice], list[Outcome]]:
    """Write a reply to every case without a guard, then with one that forbids what was said.

    Args:
        model: Writes them.
        chosen: The cases.
        temperatures: At which all are written.

    Returns:
        The replies without a guard at the first temperature, and the outcomes at all of them.
    """
    engine, first, outcomes = LocalEngine(model, queue_limit=512), list[Choice](), list[Outcome]()
    try:
        for temperature in temperatures:
            ask = _Asker(engine, model, temperature)
            plain = await asyncio.gather(*(ask(case, ()) for case in chosen))
            first = first or plain
            said = [sayable(c.schema, r.text) for c, r in zip(chosen, plain, strict=True)]
            pairs = zip(chosen, said, strict=True)
            outcomes += await asyncio.gather(*(ask.guarded(case, words) for case, words in pairs))
    finally:
        await engine.aclose()
    return first, outcomes


class _Asker:
    def __init__(self, engine: LocalEngine, model: CausalModel, temperature: float) -> None:
        self._engine, self._model, self._temperature = engine, model, temperature

    async def __call__(self, case: Case, recipes: tuple[Recipe, ...]) -> Choice:
        sampling = Sampling(temperature=self._temperature, seed=7)
        request = Request(
            messages=({"role": "user", "content": case.prompt},),
            sampling=sampling,
            max_tokens=N_TOKENS,
            logprobs=0,
        )
        own = (Grammar(of_schema(case.schema)), *sampling_recipes(sampling))
        plan = Plan(request=request, recipes=in_order((*own, *recipes)), reuse=True)
        return (await collect(self._engine.stream(plan))).choices[0]

    async def guarded(self, case: Case, phrases: tuple[str, ...]) -> Outcome:
        guard = guard_of(phrases)
        asked = replace(case, schema=pruned(case.schema, guard.hides))
        choice = await self(asked, in_json(guard.recipes(self._model.lexicon)))
        parsed = _parsed(choice.text)
        return Outcome(
            case=case,
            phrases=phrases,
            finish=choice.finish,
            is_valid=choice.finish == "stop" and _satisfies(case.schema, parsed),
            is_clean=not any(map(guard.hides, (choice.text, *strings(parsed)))),
        )


def guard_of(phrases: Sequence[str]) -> Guard:
    """Return a guard that forbids *phrases*."""
    target = ForgetTarget(title="forms", phrases=tuple(Phrase(text=text) for text in phrases))
    return Guard.compile([target], epoch=1)


def sayable(schema: Mapping[str, Any], reply: str) -> tuple[str, ...]:
    """Return up to three words of *reply*, longest first, that *schema* does not insist on.

    Words of its free strings, or a value for which it has others.
    """
    source = json.dumps(schema, ensure_ascii=False).lower()
    said = {word for text in strings(_parsed(reply)) for word in _WORD.findall(text)}
    free = sorted((w for w in said if w.lower() not in source), key=lambda w: (-len(w), w))
    chosen = [v for v in strings(_parsed(reply)) if N(source).count(N(v)) == 1]
    chosen = [v for v in chosen if any(v in values for values in _choices(schema))]
    return (*free[:2], *chosen[:1]) or ("Rosalind Franklin",)


def _choices(schema: Any) -> Iterator[list[Any]]:
    """Yield every list of two values or more that *schema* lets a reply choose from."""
    inner = schema.values() if isinstance(schema, Mapping) else schema
    if isinstance(schema, Mapping) and len(schema.get("enum", ())) > 1:
        yield schema["enum"]
    if isinstance(schema, Mapping | list):
        for part in inner:
            yield from _choices(part)


def strings(value: Any) -> Iterator[str]:
    """Yield every string of a JSON value, names of members included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from value
        for part in value.values():
            yield from strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from strings(part)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _satisfies(schema: Mapping[str, Any], value: Any) -> bool:
    from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

    checker = Draft202012Validator.FORMAT_CHECKER
    return bool(Draft202012Validator(schema, format_checker=checker).is_valid(value))


def _satisfied(found: tuple[list[Choice], list[Outcome]], model: CausalModel) -> Iterator[Figure]:
    plain, outcomes = found
    conditions: dict[str, Any] = {"model": model.name, "schemas": len(plain)}
    good = [100.0 * (one.is_valid and one.is_clean) for one in outcomes]
    yield of(
        "forms.json_schema_50", [sum(good) / len(good)], "%", goal=Goal(value=100, sense=">="),
        **conditions, guard="forbids words that the model said without it",
        temperatures="0 and 1", max_tokens=N_TOKENS,
    )  # fmt: skip
    ended = [100.0 * (r.finish == "stop" and len(r.logprobs) <= IN_TIME) for r in plain]
    yield of(
        "forms.finished_256", [sum(ended) / len(ended)], "%", **conditions,
        temperature=0, guard="none",
        statistic=f"share ended within {IN_TIME} tokens",
    )  # fmt: skip


# --- cost ----------------------------------------------------------------------------------------

LETTER: Final = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 80},
        "tags": {"type": "array", "items": {"enum": ["urgent", "later", "never"]}, "maxItems": 3},
        "body": {"type": "string"},
        "pages": {"type": "integer", "minimum": 1, "maximum": 900},
        "sent": {"type": "string", "format": "date"},
    },
    "required": ["title", "tags", "body", "pages", "sent"],
    "additionalProperties": False,
}
_BODY: Final = "It was a dark night, and the keeper of the light had gone to bed early. " * 4
_TEXT: Final = json.dumps(
    {"title": "A letter", "tags": ["later"], "body": _BODY, "pages": 12, "sent": "2024-02-29"},
    separators=(",", ":"),
)


def _cost(model: CausalModel, setup: Setup) -> Iterator[Figure]:
    recipe = Grammar(of_schema(LETTER))
    tokens = model.tokenizer.encode(_TEXT, add_special_tokens=False)
    _timed(recipe, model, tokens)
    took = [t for _ in range(setup.repeats(5, 2)) for t in _timed(recipe, model, tokens)]
    yield of(
        "forms.mask_ms", took, "ms", goal=Goal(value=1, sense="<="), tokenizer=model.name,
        vocab=model.vocab_size, threads=1, tokens=len(tokens), statistic="p50 of adjust + advance",
    )  # fmt: skip


def _timed(recipe: Recipe, model: CausalModel, tokens: Sequence[int]) -> list[float]:
    context = Context(lexicon=model.lexicon, vocab_size=model.vocab_size, eos=model.eos)
    session: Session = recipe.begin(context)
    row, took = torch.randn(model.vocab_size), list[float]()
    for position, token in enumerate(tokens):
        start = time.perf_counter_ns()
        session.adjust(row, Here(row, position=position))
        session = session.advance(token)
        took.append((time.perf_counter_ns() - start) / 1e6)
    return took
