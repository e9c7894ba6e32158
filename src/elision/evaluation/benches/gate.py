"""What the gate costs per prompt, and how well it tells prompts apart."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from typing import Any

from elision.encoders import SentenceEncoder
from elision.evaluation.bench import Setup
from elision.evaluation.benches.encoder import bench_encoder
from elision.evaluation.benches.phrases import made_up
from elision.evaluation.figures import Figure, Goal, of
from elision.evaluation.gate_quality import (
    TABLE_A,
    TABLE_B,
    Rates,
    Tofu,
    cloze,
    rates,
    sampled,
    wrapped,
)
from elision.guards.gate.calibrate import calibrate
from elision.guards.gate.gate import Gate
from elision.guards.gate.views import Turn
from elision.guards.targets import ForgetTarget

TENANT = "bench"
VIEWS = (1, 3, 8, 28, 64)
TARGETS = (100, 1_000, 10_000)
SYSTEM = "You are a helpful assistant."
_ATTRIBUTES = ("best known book", "birthplace", "first employer", "favourite subject at school")
_WORDS = (
    "harbour lantern orchard valley winter market bridge garden letter journey teacher window "
    "river mountain castle village forest painter sailor baker clock mirror island kitchen"
).split()


def measure(setup: Setup) -> Iterator[Figure]:
    """Yield the figures of the gate; those of its quality need the TOFU files in ``--data``."""
    yield from _cost(setup)
    if setup.data is None:
        yield Figure(
            figure="gate.quality_skipped", value=1, unit="run",
            conditions={"why": "no --data DIR with forget10_perturbed.jsonl, retain90.jsonl ..."},
        )  # fmt: skip
        return
    yield from _quality(setup, Tofu.read(setup.data))


# --- cost ----------------------------------------------------------------------------------------


def _cost(setup: Setup) -> Iterator[Figure]:
    encoder = bench_encoder(setup)
    gates = {n: Gate.compile(_named(n), encoder, tenant=TENANT) for n in TARGETS}
    conditions: dict[str, Any] = {"encoder": encoder.name, "threads": 1, "cache": "cold"}
    request = _questions(setup.repeats(40, 10))
    took = {n: _timed(gate, request, encoder) for n, gate in gates.items()}
    yield of(
        "gate.request_ms", took[1_000], "ms", goal=Goal(value=15, sense="<="), targets=1_000,
        probes=gates[1_000].n_probes, views="3: system text, question, both", **conditions,
    )  # fmt: skip
    yield of(
        "gate.encoder_ms", _encoding(request, encoder), "ms", views=3, **conditions,
        what="the encoder alone on the same prompts' views",
    )  # fmt: skip
    for n in TARGETS:
        if n != 1_000:
            yield of(
                f"gate.request_ms_{n}_targets", took[n], "ms", targets=n, views=3, **conditions
            )
    yield of(
        "gate.growth_x", [b / a for a, b in zip(took[1_000], took[10_000], strict=True)], "x",
        goal=Goal(value=1.3, sense="<="), what="10,000 targets over 1,000", **conditions,
    )  # fmt: skip
    for n_views in VIEWS:
        prompts = [_prompt(n_views, gates[1_000], seed) for seed in range(setup.repeats(10, 2))]
        samples = _timed(gates[1_000], prompts, encoder)
        yield of(f"gate.ms_{n_views}_views", samples, "ms", targets=1_000, **conditions)


def _named(n: int) -> list[ForgetTarget]:
    return [
        ForgetTarget(id=target.id, title="bench", names=(target.phrases[0].text,))
        for target in made_up(n)
    ]


def _questions(n: int) -> list[list[Turn]]:
    rng = random.Random(7)  # noqa: S311 -- test data, not a secret
    return [
        [
            Turn("system", SYSTEM),
            Turn("user", f"What is the {rng.choice(_ATTRIBUTES)} of the {' '.join(words)}?"),
        ]
        for words in (rng.sample(_WORDS, 3) for _ in range(n))
    ]


def _prompt(n_views: int, gate: Gate, seed: int) -> list[Turn]:
    """Return a made-up prompt that has *n_views* views, or the next number above."""
    rng, sentences = random.Random(seed), list[str]()  # noqa: S311 -- test data, not a secret
    while True:
        sentences.append(f"The {' '.join(rng.sample(_WORDS, 6))} was old.")
        turns = [Turn("user", " ".join(sentences))]
        if gate.n_views(turns) >= n_views:
            return turns


def _timed(gate: Gate, prompts: Sequence[Sequence[Turn]], encoder: SentenceEncoder) -> list[float]:
    gate.assess(prompts[0]).result()
    took = []
    for turns in prompts:
        encoder.erase(TENANT)
        start = time.perf_counter()
        gate.assess(turns).result()
        took.append((time.perf_counter() - start) * 1e3)
    return took


def _encoding(prompts: Sequence[Sequence[Turn]], encoder: SentenceEncoder) -> list[float]:
    took = []
    for turns in prompts:
        texts = [turn.text for turn in turns]
        encoder.erase(TENANT)
        start = time.perf_counter()
        encoder.embed([*texts, "\n".join(texts)], tenant=TENANT).result()
        took.append((time.perf_counter() - start) * 1e3)
    return took


# --- quality -------------------------------------------------------------------------------------


def _quality(setup: Setup, tofu: Tofu) -> Iterator[Figure]:
    gate = Gate.compile(tofu.targets(), bench_encoder(setup), tenant=TENANT)
    n = setup.repeats(400, 40)
    asked = [row["paraphrased_question"] for row in sampled(tofu.forget, n)]
    other = [row["question"] for row in sampled(tofu.retain, n, seed=1)]
    pooled = [Rates(), Rates()]
    for name, wrapper in TABLE_A.items():
        caught = rates(gate, wrapped(wrapper, asked, tofu, seed=2))
        false = rates(gate, wrapped(wrapper, other, tofu, seed=3))
        pooled = [pooled[0] + caught, pooled[1] + false]
        yield _rate(f"gate.tpr.{name}", caught, Goal(value=0.93, sense=">="))
        yield _rate(f"gate.fpr.{name}", false, Goal(value=0.06, sense="<="))
    yield _rate("gate.tpr", pooled[0], Goal(value=0.97, sense=">="))
    yield _rate("gate.fpr", pooled[1], Goal(value=0.025, sense="<="))
    others = rates(gate, [row["question"] for row in tofu.others])
    yield _rate("gate.fpr.others", others, Goal(value=1 / 217, sense="<="))
    yield from _recall(gate, tofu, asked[: setup.repeats(100, 20)])
    yield from _calibrated(gate, tofu, setup)


def _recall(gate: Gate, tofu: Tofu, asked: Sequence[str]) -> Iterator[Figure]:
    for name, wrapper in TABLE_B.items():
        yield _rate(f"gate.tpr.{name}", rates(gate, wrapped(wrapper, asked, tofu, seed=2)), None)
    demands = [cloze(row) for row in sampled(tofu.forget, len(asked))]
    yield _rate("gate.tpr.cloze", rates(gate, demands), None)


def _calibrated(gate: Gate, tofu: Tofu, setup: Setup) -> Iterator[Figure]:
    rows = tofu.retain[: setup.repeats(len(tofu.retain), 200)]
    prompts = [[Turn("user", row["question"])] for row in rows]
    groups = [n // 20 for n in range(len(rows))]
    done = calibrate(gate, prompts, target_fpr=0.01, groups=groups)
    low, high = done.held_out.interval
    yield Figure(
        figure="gate.calibrated_fpr", value=round(done.held_out.share, 4), unit="share",
        goal=Goal(value=0.025, sense="<="), spread=(round(low, 4), round(high, 4)),
        conditions={
            "n": done.held_out.n, "target": 0.01, "t_hi": round(done.policy.t_hi, 4),
            "split": "by author", "spread": "Wilson 95 %",
        },
    )  # fmt: skip


def _rate(name: str, found: Rates, goal: Goal | None) -> Figure:
    low, high = found.opened.interval
    return Figure(
        figure=name, value=round(found.opened.share, 4), unit="share", goal=goal,
        spread=(round(low, 4), round(high, 4)),
        conditions={
            "n": found.n, "open": found.n_open, "watched or open": round(found.watched.share, 4),
            "views": round(found.n_views / max(found.n, 1), 1), "spread": "Wilson 95 %",
        },
    )  # fmt: skip
