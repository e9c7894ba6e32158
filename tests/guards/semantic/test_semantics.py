"""What the judge says of a word and of a sentence; the oracle is the cosine that was planted."""

from __future__ import annotations

import json
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.encoders import SentenceEncoder
from elision.errors import ConfigError, EngineError, GuardError
from elision.guards.gate.assessment import Assessment, Level, Suspect
from elision.guards.semantic.judge import Finding, Judge
from elision.guards.semantic.policy import SemanticPolicy
from elision.guards.semantic.semantics import Semantics
from elision.guards.semantic.sentences import Running
from elision.testing.laws import check_speaks_of_nothing

from .semantic_cases import Planted, semantics, suspicion, target

ANSWER = "Zorblax Quint grew up in the harbour town of Velm."
SAID = "In Velm, by the sea, Quint spent her youth."
EVERY = SemanticPolicy()


def judged(
    text: str,
    *targets: Any,
    cosines: dict[str, tuple[str, float]] | None = None,
    level: Level = Level.OPEN,
    user_text: str = "",
    before: str = "",
    scores: tuple[float, ...] = (),
) -> list[Finding]:
    """Return what the judge finds in *text*."""
    known = semantics(*targets, encoder=Planted(cosines or {}))
    given = scores or (0.9,) * len(targets)
    pairs = zip(targets, given, strict=True)
    suspects = tuple(Suspect(t.id, score, named=False) for t, score in pairs)
    judge = Judge.of(known, Assessment(level=level, suspects=suspects), user_text)
    running, pieces = Running.after(before).read(text)
    return [*judge.judge((*pieces, *running.finish()[1]))]


def kinds(findings: list[Finding]) -> list[tuple[str, str | None]]:
    return [(finding.piece.kind, finding.action) for finding in findings]


@given(st.floats(0, 1), st.sampled_from([Level.WATCH, Level.OPEN]))
def test_a_sentence_is_caught_from_its_threshold_on(cosine: float, level: Level) -> None:
    found = judged(SAID, target(answers=(ANSWER,)), cosines={SAID: (ANSWER, cosine)}, level=level)
    caught = cosine >= EVERY.sentence + 1e-6
    if abs(cosine - EVERY.sentence) > 1e-5:
        assert kinds(found) == ([("sentence", "restrict")] if caught else [])


@given(st.floats(0, 1))
def test_a_word_is_caught_or_made_unlikely_by_its_cosine(cosine: float) -> None:
    found = judged(
        "It is Velmish here",
        target(phrases=("Velm harbour",)),
        cosines={"velmish": ("velm", cosine)},
    )
    if cosine >= EVERY.word + 1e-5:
        assert kinds(found) == [("word", "restrict")]
    elif EVERY.soft + 1e-5 < cosine < EVERY.word - 1e-5:
        assert kinds(found) == [("word", None)]
        assert found[0].nats == pytest.approx(EVERY.kappa * (cosine - EVERY.soft), abs=1e-3)
    elif cosine < EVERY.soft - 1e-5:
        assert found == []


def test_words_are_not_judged_while_the_gate_only_watches() -> None:
    words = target(phrases=("Velm harbour",))
    assert judged("It is Velm", words, level=Level.WATCH) == []
    assert kinds(judged("It is Velm", words)) == [("word", "restrict")]


def test_words_are_not_judged_for_a_topic() -> None:
    assert judged("It is Velm", target(phrases=("Velm harbour",), kind="topic")) == []


def test_words_that_the_caller_wrote_himself_may_be_said() -> None:
    words = target(phrases=("Velm harbour",))
    assert judged("It is Velm", words, user_text="What about VELM?") == []


def test_ordinary_words_and_soft_phrases_are_no_entity_words() -> None:
    encoder = Planted({})
    known = semantics(target(phrases=("the house of 1991 Velm", "Velm")), encoder=encoder)
    known.subjects(["t"])
    assert encoder.asked == ["velm"]


def test_the_commonest_words_cost_nothing() -> None:
    encoder = Planted({})
    known = semantics(target(phrases=("Velm",)), encoder=encoder)
    judge = Judge.of(known, suspicion(), "")
    encoder.asked.clear()
    _, pieces = Running().read("the of and he had 1991 kelp ")
    judge.judge(pieces)
    assert encoder.asked == ["kelp"]


@pytest.mark.parametrize(
    ("said", "cosine", "level", "user_text", "caught"),
    [
        ("She came on November 5th, 1991.", 0.0, Level.OPEN, "", True),
        ("She came in 1991.", 0.0, Level.OPEN, "", True),
        ("She came on November 6th, 1991.", 0.0, Level.OPEN, "", False),
        ("She came on November 5th, 1991.", 0.0, Level.WATCH, "", False),
        ("She came on November 5th, 1991.", 0.6, Level.WATCH, "", True),
        ("She came on November 6th, 1991.", 0.6, Level.WATCH, "", False),
        ("She came in 1991.", 0.0, Level.OPEN, "Was it 1991?", False),
        ("She came in 1991.", 0.6, Level.OPEN, "Was it 1991?", True),
        ("She has 2 sisters.", 0.0, Level.OPEN, "", False),
        ("She has two sisters.", 0.6, Level.OPEN, "", True),
    ],
)
def test_a_number_or_date_decides_where_the_gate_is_open_or_the_sentence_near(
    said: str, cosine: float, level: Level, user_text: str, caught: bool
) -> None:
    answer = "Quint was born on 05/11/1991 beside 2 sisters."
    found = judged(
        said,
        target(answers=(answer,)),
        cosines={said: (answer, cosine)},
        level=level,
        user_text=user_text,
    )
    assert kinds(found) == ([("sentence", "restrict")] if caught else [])


@pytest.mark.parametrize(
    ("said", "level", "user_text", "expected"),
    [
        ("She is left-handed.", Level.OPEN, "", ["word", "sentence"]),
        ("She is left-handed.", Level.WATCH, "", []),
        ("She is left-handed.", Level.OPEN, "Left-handed or not?", []),
        ("She is handed left.", Level.OPEN, "", []),
    ],
)
def test_a_short_answer_is_found_as_it_stands(
    said: str, level: Level, user_text: str, expected: list[str]
) -> None:
    found = judged(said, target(answers=("left-handed",)), level=level, user_text=user_text)
    assert [finding.piece.kind for finding in found] == expected


def test_a_number_begun_in_the_prefill_counts_and_one_that_stood_there_does_not() -> None:
    born = target(answers=("Quint was born in the year 1991 in Velm.",))
    assert kinds(judged("91 or so.", born, before="It was in 19")) == [("sentence", "restrict")]
    assert judged(" or so.", born, before="It was in 1991") == []


def test_a_suspect_of_low_score_is_only_watched_beside_one_that_opens_the_gate() -> None:
    targets = (target("a", answers=("1887",)), target("b", answers=("1991",)))
    assert kinds(judged("It was 1991 then", *targets, scores=(0.9, 0.9)))
    assert judged("It was 1991 then", *targets, scores=(0.9, 0.6)) == []
    assert kinds(judged("It was 1887 then", *targets, scores=(0.6, 0.5))), "the best is open"


@pytest.mark.parametrize(
    ("actions", "expected", "n_observed"),
    [
        (("redact", "restrict"), "restrict", 0),
        (("restrict", "refuse"), "refuse", 0),
        (("redact", "observe"), "redact", 1),
        (("observe",), None, 1),
    ],
)
def test_the_strictest_target_decides(
    actions: tuple[Any, ...], expected: str | None, n_observed: int
) -> None:
    targets = [target(f"t{n}", answers=(ANSWER,), action=a) for n, a in enumerate(actions)]
    (found,) = judged(ANSWER, *targets, level=Level.WATCH)
    assert (found.action, found.observed) == (expected, n_observed)


def test_a_sentence_of_a_longer_answer_is_compared_too() -> None:
    longer = target(answers=("She was born at sea. Her town was Velm.",))
    assert kinds(judged("Well. Her town was Velm.", longer, level=Level.WATCH)) == [
        ("sentence", "restrict")
    ]


def test_a_fact_in_a_long_sentence_is_found_in_its_window() -> None:
    filler = " ".join(f"word{n}x" for n in range(12))
    window = f"{filler} {ANSWER[:-1]}"
    text = f"{filler} {window} {filler}"
    found = judged(
        text, target(answers=(ANSWER,)), cosines={" ".join(text.split()[12:36]): (ANSWER, 0.9)},
        level=Level.WATCH,
    )  # fmt: skip
    assert kinds(found) == [("sentence", "restrict")]


def test_only_active_targets_are_compiled_and_embedded_once_suspected() -> None:
    encoder = Planted({})
    known = semantics(
        target("a", answers=("alpha",)),
        target("b", answers=("beta",), state="suspended"),
        encoder=encoder,
    )
    assert "a" in known
    assert "b" not in known
    assert encoder.asked == []
    known.prefetch(["a", "b"])
    known.subjects(["a"])
    known.subjects(["a"])
    assert encoder.asked == ["alpha"]


def test_a_suspect_that_was_not_compiled_stops_the_answer() -> None:
    with pytest.raises(GuardError, match="suspects 'other'"):
        Judge.of(semantics(target(answers=("x",))), suspicion(Level.OPEN, "other"), "")


class Failing(Planted):
    """Breaks by *error* from the second call on; then works again."""

    def __init__(self, error: Exception) -> None:
        super().__init__({})
        self.error: Exception | None = error

    def embed(self, texts: Any, *, tenant: str) -> Future[Any]:
        if self.error is None:
            return super().embed(texts, tenant=tenant)
        future: Future[Any] = Future()
        future.set_exception(self.error)
        return future


@pytest.mark.parametrize("error", [EngineError("broken"), RuntimeError("cannot read zorblax")])
def test_a_broken_encoder_stops_the_answer_and_tells_nothing(error: Exception) -> None:
    encoder = Failing(error)
    known = semantics(target(answers=("zorblax",)), encoder=encoder)
    with pytest.raises(GuardError, match=type(error).__name__) as caught:
        known.subjects(["t"])
    check_speaks_of_nothing([caught.value], ["zorblax"])
    encoder.error = None
    assert len(known.subjects(["t"])) == 1, "a failure is not kept"


def test_an_encoder_that_does_not_answer_stops_the_answer() -> None:
    class Silent(Planted):
        def embed(self, texts: Any, *, tenant: str) -> Future[Any]:
            return Future()

    slow = semantics(
        target(answers=("x",)), encoder=Silent({}), policy=SemanticPolicy(timeout_s=0.01)
    )
    with pytest.raises(GuardError, match="TimeoutError"):
        slow.subjects(["t"])


def test_no_repr_tells_what_is_suppressed() -> None:
    known = semantics(target(answers=(ANSWER,), phrases=("Velm harbour",)))
    judge = Judge.of(known, suspicion(), "my secret question")
    told = [repr(known), repr(known.subjects(["t"])), repr(judge)]
    check_speaks_of_nothing(told, [ANSWER, "Velm", "Zorblax", "my secret question"])


@pytest.mark.parametrize(
    "fields", [{"word": 0.0}, {"sentence": 1.2}, {"soft": 0.9}, {"kappa": -1.0}, {"retries": -1}]
)
def test_a_policy_that_makes_no_sense_is_refused(fields: Any) -> None:
    with pytest.raises(ConfigError):
        SemanticPolicy(**fields)


def test_semantics_are_compiled_for_a_tenant() -> None:
    tenants = []

    class Asking(Planted):
        def embed(self, texts: Any, *, tenant: str) -> Future[Any]:
            tenants.append(tenant)
            return super().embed(texts, tenant=tenant)

    Semantics.compile([target(answers=("x",))], Asking({}), tenant="acme").subjects(["t"])
    assert tenants == ["acme"]


@pytest.mark.model
def test_with_the_real_encoder_true_answers_are_caught_and_others_are_not(
    minilm_dir: Path,
) -> None:
    data = Path(__file__).parents[2] / "data" / "tofu" / "generations.jsonl"
    rows = [json.loads(line) for line in data.read_text("utf-8").splitlines()][::16]
    encoder = SentenceEncoder.load(minilm_dir, name="all-minilm-l6-v2")
    targets = [target(f"t{n}", answers=(row["gen_full"],)) for n, row in enumerate(rows)]
    known = semantics(*targets, encoder=encoder)

    def caught(text: str, n: int) -> bool:
        judge = Judge.of(known, suspicion(Level.WATCH, f"t{n}"), "")
        running, pieces = Running().read(text)
        return any(f.action for f in judge.judge((*pieces, *running.finish()[1])))

    n = len(rows)
    try:
        assert all(caught(f"As you ask: {row['gen_full']}", i) for i, row in enumerate(rows))
        others = sum(caught(rows[(i + n // 2) % n]["gen_full"], i) for i in range(n))
    finally:
        encoder.close()
    assert others <= 0.05 * n
