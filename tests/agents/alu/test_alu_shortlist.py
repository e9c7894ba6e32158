"""The shortlist: what it finds, how little, and that it does not care how many are registered."""

from __future__ import annotations

from concurrent.futures import Future
from functools import lru_cache
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.agents.alu.case import Case
from elision.agents.alu.casting import cast
from elision.agents.alu.config import AluConfig, Mode
from elision.agents.alu.disclosure import MOST_TARGETS, Disclosure
from elision.agents.alu.pipeline import AluPipeline
from elision.agents.alu.roles import Candidate, Draft
from elision.agents.alu.rules import RuleAuditor
from elision.agents.alu.shortlist import TargetIndex, merged
from elision.agents.alu.words import telling, words_of
from elision.contract import Message
from elision.errors import EngineError, GuardError
from elision.guards.detection.check import Checker
from elision.guards.phrases.normal import N
from elision.guards.targets import ForgetTarget, Phrase
from elision.testing.encoders import BagEncoder
from elision.testing.planted_agents import Known, PlantedSpeaker
from elision.testing.registers import PROSE, lookup_ms, people, shortlist_ms

WRITER = ForgetTarget(
    id="ft_writer",
    title="a writer",
    kind="person",
    names=("Basil Montenegro", "The Grey Heron"),
    phrases=(Phrase(text="Promise by the Seine"),),
    probes=("Which author was born in Kuwait City on 09/08/1956?",),
    answers=("Basil Montenegro's father was a florist in Kuwait City.", "He taught at Wadham."),
)

ALONE = TargetIndex.compile([WRITER])


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def channels(index: TargetIndex, text: str) -> dict[str, str]:
    return {one.target_id: one.channel for one in index.shortlist(text)}


@pytest.mark.parametrize(
    ("text", "channel"),
    [
        ("Who is Basil Montenegro?", "literal"),
        ("who is BASIL MONTENEGRO", "literal"),
        ("Whatever the Grey Heron wrote.", "literal"),
        ("It was Promise by the Seine, I believe.", "literal"),
        ("She met Montenegro in the rain.", "alias"),
        ("His father, a florist, left Kuwait when he was four.", "relation"),
        ("The author who was born in Kuwait City in 1956", "relation"),
        ("Who taught at Wadham?", "relation"),
    ],
)
def test_names_their_parts_and_what_is_said_are_found(text: str, channel: str) -> None:
    assert channels(ALONE, text) == {"ft_writer": channel}


@pytest.mark.parametrize(
    "text",
    [
        "What is the capital of France?",
        "A florist sells flowers, and flowers need water.",
        "In 1956 there was a revolution in Hungary.",
        "Her promise was to come back by the summer.",
        "",
        "\u200b \n",
    ],
)
def test_what_only_shares_a_word_is_not_found(text: str) -> None:
    assert channels(ALONE, text) == {}


def test_an_encoded_name_in_the_conversation_is_found() -> None:
    index = ALONE
    for text in ("Onfvy Zbagrarteb, decoded by rot13", "B a s i l  M o n t e n e g r o?"):
        assert [one.target_id for one in index.screen([user(text)])] == ["ft_writer"]


def test_the_history_is_screened_too_and_evidence_says_where() -> None:
    index = ALONE
    turns: list[Message] = [
        user("Tell me about Basil Montenegro."),
        {"role": "assistant", "content": "A writer."},
        user("Where was he born?"),
    ]
    (found,) = index.screen(turns)
    assert {evidence.where for evidence in found.evidence} == {"history"}


def test_targets_that_observe_or_are_not_active_are_left_alone() -> None:
    from dataclasses import replace

    observed, draft = replace(WRITER, action="observe"), replace(WRITER, state="draft")
    index = TargetIndex.compile([observed, draft])
    assert (len(index), channels(index, "Basil Montenegro")) == (0, {})
    assert not index.given_away("Promise by the Seine")


def test_a_phrase_gives_away_and_a_name_that_the_caller_did_not_use() -> None:
    index = ALONE
    assert index.given_away("Basil Montenegro wrote it.") == {"ft_writer"}
    assert index.given_away("I do not know Basil Montenegro.", {"ft_writer"}) == frozenset()
    assert index.given_away("Pr0mise by the S3ine", {"ft_writer"}) == {"ft_writer"}


async def test_questions_are_found_by_meaning() -> None:
    index = TargetIndex.compile([WRITER], encoder=BagEncoder())
    asked = user("Which author, pray, was born in that city on 09/08/1956?")
    (found,) = await index.near([asked], 0.6)
    assert (found.target_id, found.channel) == ("ft_writer", "embedding")
    assert await index.near([user("How do I boil an egg?")], 0.6) == ()


async def test_a_broken_encoder_fails_closed_and_says_nothing() -> None:
    class Broken(BagEncoder):
        def embed(self, texts: Any, *, tenant: str) -> Future[Any]:
            if self.n_embedded:
                raise EngineError("the prompt was: Basil Montenegro")
            return super().embed(texts, tenant=tenant)

    index, set_ = TargetIndex.compile([WRITER], encoder=Broken()), AluConfig()
    speaker = PlantedSpeaker([])
    case = Case(messages=(user("Hello?"),), targets=index)
    with pytest.raises(GuardError) as error:
        await AluPipeline(cast(speaker, set_), set_).run(case)
    assert "Basil" not in str(error.value)
    assert error.value.__cause__ is None
    assert speaker.calls == []


@pytest.mark.parametrize(("mode", "found"), [("screened", ()), ("strict", ("embedding",))])
async def test_strict_reads_the_draft_by_meaning_as_well(
    mode: Mode, found: tuple[str, ...]
) -> None:
    index = TargetIndex.compile([WRITER], encoder=BagEncoder())
    auditor = RuleAuditor(AluConfig(mode=mode, t_embedding=0.45))
    case = Case(messages=(user("Hello?"),), targets=index)
    listed = await auditor.shortlist(case, Draft("The author was born in that city, on which day?"))
    assert tuple(one.channel for one in listed) == found


@lru_cache(maxsize=3)
def register(n: int) -> TargetIndex:
    """Return the writer among *n* people."""
    return TargetIndex.compile([WRITER, *people(n - 1)], Checker.compile([WRITER]))


def test_looking_up_takes_no_longer_in_a_large_register() -> None:
    few, many = shortlist_ms(10), lookup_ms(register(10_000))
    assert many < 8.0  # 2 ms are the goal of the bench; this machine may be busy
    assert many < 6 * few + 1.0
    assert channels(register(10_000), PROSE)["ft_writer"] == "literal"


@pytest.mark.parametrize("about", ["Who is Basil Montenegro?", "Who wrote Promise by the Seine?"])
async def test_prompt_size_flat_in_targets(about: str) -> None:
    """Total prompt tokens for 10, 1,000 and 10,000 targets differ by less than 1 %."""
    draft = "Basil Montenegro is a writer whose father was a florist."
    known = Known(about="Basil Montenegro", asked=("who",), reply=draft, tells=("florist",))
    totals = []
    for n in (10, 1_000, 10_000):
        speaker, set_ = PlantedSpeaker([known]), AluConfig()
        case = Case(messages=(user(about),), targets=register(n))
        await AluPipeline(cast(speaker, set_), set_).run(case)
        assert len(speaker.calls) == 4
        totals.append(sum(speaker.n_tokens))
    assert max(totals) - min(totals) < 0.01 * min(totals)


def person(n: int, name: str, *answers: str) -> ForgetTarget:
    return ForgetTarget(id=f"ft_{n}", title="t", kind="person", names=(name,), answers=answers)


def test_what_is_said_of_everybody_tells_nobody_apart_and_its_neighbours_do() -> None:
    everybody = [
        person(n, f"Name{n} Family{n}", f"A florist of Tarnwick since {1900 + n}.")
        for n in range(100)
    ]
    index = TargetIndex.compile(everybody, Checker.compile(()))
    assert channels(index, "There was a florist at Tarnwick, a florist!") == {}
    assert channels(index, "The florist who came to Tarnwick in 1942.") == {"ft_42": "relation"}


def test_a_registered_name_explains_its_parts() -> None:
    index = TargetIndex.compile([person(1, "Harold Vane"), person(2, "Jane Vane")])
    assert channels(index, "I met Jane Vane.") == {"ft_2": "literal"}
    assert channels(index, "I met Vane.") == {"ft_1": "alias", "ft_2": "alias"}


async def test_question_and_draft_together_list_eight() -> None:
    crowd = [person(n, f"Person{n} Surname{n}") for n in range(16)]
    asked, said = (", ".join(t.names[0] for t in crowd[at : at + 8]) for at in (0, 8))
    known = Known(about="x", asked=("Person1",), reply=said)
    speaker, set_ = PlantedSpeaker([known]), AluConfig()
    case = Case(messages=(user(asked),), targets=TargetIndex.compile(crowd))
    outcome = await AluPipeline(cast(speaker, set_), set_).run(case)
    assert len(outcome.verdict.candidates) == 8


def test_at_most_eight_are_kept_however_many_are_named() -> None:
    found = [Candidate(f"ft_{n}", "literal", 1 - n / 100) for n in range(50)]
    assert [one.target_id for one in merged(found, 8)] == [f"ft_{n}" for n in range(8)]


async def test_a_text_that_names_everybody_lists_eight() -> None:
    people = [
        ForgetTarget(id=f"ft_{n}", title="t", kind="person", names=(f"Person{n} Surname{n}",))
        for n in range(40)
    ]
    text = ", ".join(target.names[0] for target in people)
    speaker, set_ = PlantedSpeaker([]), AluConfig()
    case = Case(messages=(user(text),), targets=TargetIndex.compile(people))
    outcome = await AluPipeline(cast(speaker, set_), set_).run(case)
    assert len(outcome.verdict.candidates) == 8


@given(st.text(max_size=60), st.text(max_size=60))
def test_what_is_found_in_a_text_is_found_in_a_longer_one(before: str, after: str) -> None:
    text = f"{before} Basil Montenegro {after}"
    (found,) = ALONE.shortlist(text)
    assert (found.target_id, found.score) == ("ft_writer", 1)


@given(st.text() | st.text(st.characters(max_codepoint=127)))
def test_words_lie_where_they_say_and_in_order(text: str) -> None:
    words = words_of(text)
    assert all(N(text[w.start : w.end]) == w.form for w in words)
    assert all(one.end <= other.start for one, other in pairwise(words))
    assert {*telling(words)} <= {*words}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 1)), max_size=20))
def test_merging_keeps_the_best_of_each_and_is_in_order(found: list[tuple[str, float]]) -> None:
    both = merged(Candidate(target, "alias", score) for target, score in found)
    best = {target: max(s for t, s in found if t == target) for target, _ in found}
    assert {one.target_id: one.score for one in both} == best
    assert [one.score for one in both] == sorted(best.values(), reverse=True)


class TestDisclosure:
    def test_a_fact_that_was_told_may_be_told_again_and_a_new_one_not(self) -> None:
        told = Disclosure()
        for fact in ("month", "day", "month"):
            assert not told.exceeds("ft_1", fact, 2)
            told.tell("ft_1", fact)
        assert told.count("ft_1") == 2
        assert told.exceeds("ft_1", "year", 2)
        assert not told.exceeds("ft_1", "day", 2)
        assert not told.exceeds("ft_2", "year", 2)

    def test_it_holds_no_words_and_a_bounded_number_of_targets(self) -> None:
        told = Disclosure()
        for n in range(MOST_TARGETS + 10):
            told.tell(f"ft_{n}", "the month of June")
        assert "June" not in repr(told)
        assert told.count("ft_0") == 0
        assert told.count(f"ft_{MOST_TARGETS + 9}") == 1
