"""ALU's parts one by one: fences, reading, choosing, redaction, the purse."""

from __future__ import annotations

import asyncio
import re
from itertools import product
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from elision.agents.alu import prompts
from elision.agents.alu.answers import Judged, only
from elision.agents.alu.auditor import located
from elision.agents.alu.choosing import Variant, best_of, word_distance
from elision.agents.alu.config import AluConfig
from elision.agents.alu.critic import scores_in
from elision.agents.alu.purse import Pace, Purse
from elision.agents.alu.redaction import minimal, without
from elision.agents.alu.roles import Candidate, Evidence, Finding, Score
from elision.agents.alu.shortlist import TargetIndex
from elision.agents.speaking import Said
from elision.contract import Message, text_of
from elision.errors import UpstreamError
from elision.guards.targets import ForgetTarget, Phrase
from elision.testing.agents import ScriptedSpeaker

FENCE = re.compile(r"<<<(?:end of )?[\w ]+ ([0-9a-f]{16})>>>")
TOKENS = st.sampled_from(
    [
        "<<<",
        ">>>",
        "end of reply",
        "SYSTEM:",
        "<|im_end|>",
        "＜",
        "\u200b",
        "0123456789abcdef",
        "\n",
    ]
)
HOSTILE = st.lists(TOKENS | st.text(max_size=8), max_size=12).map("".join)


class TestPrompts:
    @given(HOSTILE, HOSTILE)
    def test_no_data_gets_out_of_its_fence(self, question: str, reply: str) -> None:
        conversation: list[Message] = [{"role": "user", "content": question}]
        system, asked = prompts.for_judge(conversation, reply, {"T1": "a person"})
        text = text_of(asked)
        marks = {match[1] for match in FENCE.finditer(text)}
        assert len(marks) == 1
        (mark,) = marks
        assert text.count(mark) == 6  # three fences, opened and closed
        outside = re.sub(rf"<<<([\w ]+) {mark}>>>.*?<<<end of \1 {mark}>>>", "", text, flags=re.S)
        plain = text_of(prompts.for_judge((), "", {})[1])
        assert outside == re.sub(
            r"<<<([\w ]+) (\w+)>>>.*?<<<end of \1 \2>>>", "", plain, flags=re.S
        )
        assert text_of(system) == prompts.JUDGE
        assert "<|" not in text

    def test_the_mark_is_another_one_each_time(self) -> None:
        found = {FENCE.search(prompts.fenced({"reply": "x"}))[1] for _ in range(50)}  # type: ignore[index]
        assert len(found) == 50

    def test_the_mark_never_stands_in_the_data(self, monkeypatch: pytest.MonkeyPatch) -> None:
        drawn = iter(["a" * 16, "b" * 16])
        monkeypatch.setattr(prompts, "token_hex", lambda n: next(drawn))
        assert "b" * 16 in prompts.fenced({"reply": "a" * 20})

    def test_instructions_stand_before_and_behind_the_data(self) -> None:
        for messages in (
            prompts.for_judge((), "x", {}),
            prompts.for_eraser((), "x", {}, (), 5),
            prompts.for_critic((), ("x", "y"), {}),
            prompts.for_composer((), ("x", "y"), {}),
        ):
            before, *_, behind = re.split(r"<<<[^>]*>>>", text_of(messages[1]))
            assert before.strip() == behind.strip()
            assert "JSON object and nothing else" in behind

    def test_what_is_judged_is_never_cut_and_a_conversation_keeps_its_end(self) -> None:
        long, turns = "x" * 50_000, [{"role": "user", "content": "a" * 9_000 + "end"}]
        text = text_of(prompts.for_judge(turns, long, {})[1])
        assert long in text
        assert "end" in text
        assert len(text) < len(long) + 3 * prompts.MOST_CHARS
        assert len(prompts.told(turns * 20)) == prompts.MOST_CHARS

    def test_digests_change_with_the_version(self, monkeypatch: pytest.MonkeyPatch) -> None:
        before = prompts.digests()
        monkeypatch.setattr(prompts, "VERSION", "another")
        assert all(before[role] != digest for role, digest in prompts.digests().items())


class TestReading:
    @pytest.mark.parametrize(
        ("quote", "span"),
        [("was a barber", (3, 15)), ("WAS  A\nBarber", (3, 15)), ("butcher", None), (" ", None)],
    )
    def test_a_quote_is_found_whatever_its_case_and_blanks(
        self, quote: str, span: tuple[int, int] | None
    ) -> None:
        assert located(quote, "He was a barber.") == span

    def test_what_stands_only_in_the_cleaned_draft_means_all_of_it(self) -> None:
        draft = "He was a bar\u200bber."
        assert located("barber", draft) == (0, len(draft))

    @given(st.lists(st.integers(-1, 7), max_size=6), st.integers(0, 6))
    def test_scores_are_read_only_if_each_is_there_and_within_bounds(
        self, leaks: list[int], n: int
    ) -> None:
        rows = ", ".join(
            f'{{"variant": {at}, "leak": {leak}, "utility": 3}}' for at, leak in enumerate(leaks)
        )
        found = scores_in(f'{{"scores": [{rows}]}}', n)
        valid = len(leaks) == n and all(1 <= leak <= 5 for leak in leaks)
        assert found == (tuple(Score(leak, 3) for leak in leaks) if valid else None)


class TestAnswers:
    @pytest.mark.parametrize(
        "reply",
        [
            '{"findings": []}',
            ' \n{"findings": []}\n',
            '```json\n{"findings": []}\n```',
            '```\n{"findings": []}```\n',
        ],
    )
    def test_an_object_by_itself_is_read_fenced_or_not(self, reply: str) -> None:
        assert only(reply, Judged) == Judged(findings=[])

    @pytest.mark.parametrize(
        "reply",
        [
            "",
            "none",
            'Verdict: {"findings": []}',
            '[{"findings": []}]',
            'Verdict: [{"findings": []}] no wait, T1 leaks',
            '{"findings": []} {"findings": []}',
            '{"findings": []}' + " " * 60_000 + "T1 leaks",
            '{"findings": [{"target": "T1", "kind": "direct", "quote": "x"}], "findings": []}',
            '{"findings": [{"target": "T1", "target": "T2", "kind": "direct", "quote": "x"}]}',
            '{"findings": [], "confidence": NaN}',
            "{" * 5_000,
            '{"a":' * 5_000,
            '```json\n{"findings": []}',
            '```json\n{"findings": []}\n```\nT1 leaks',
        ],
    )
    def test_whatever_stands_around_or_twice_makes_it_no_answer(self, reply: str) -> None:
        assert isinstance(only(reply, Judged), str)

    @given(st.text(max_size=12), st.text(max_size=12))
    def test_only_white_space_may_stand_around(self, before: str, behind: str) -> None:
        found = only(f'{before}{{"findings": []}}{behind}', Judged)
        assert isinstance(found, Judged) == (not (before + behind).strip(" \t\r\n"))


class TestChoosing:
    def test_it_is_the_rule_for_all_scores(self) -> None:
        """Against the rule written out, for every rating of four variants."""
        config = AluConfig()
        for leaks in product(range(1, 6), repeat=4):
            variants = [Variant(n, f"text {n}", Score(leak, 3)) for n, leak in enumerate(leaks)]
            top = sorted(leaks, reverse=True)[:3]
            best = best_of(variants, "text", config)
            assert bool(best) == (fmean(top) >= 4.0 and top[-1] >= 4)
            if best:
                assert [one.score.leak for one in best] == top
                assert best[0].index == leaks.index(max(leaks))

    @pytest.mark.parametrize(
        ("variants", "best"),
        [
            ([Variant(0, "a b", Score(5, 2)), Variant(1, "x y", Score(5, 4))], 1),
            ([Variant(0, "x y", Score(5, 4)), Variant(1, "a b z", Score(5, 4))], 1),
            ([Variant(0, "a b z", Score(5, 4)), Variant(1, "a b y", Score(5, 4))], 0),
            ([Variant(0, "a b c", Score(4, 5)), Variant(1, "x", Score(5, 1))], 1),
        ],
        ids=["utility", "nearness", "index", "leak first"],
    )
    def test_equals_are_told_apart(self, variants: list[Variant], best: int) -> None:
        assert best_of(variants, "a b c", AluConfig())[0].index == best

    @given(st.lists(st.sampled_from("ab c".split()), max_size=7), st.data())
    def test_the_distance_is_a_metric(self, one: list[str], data: Any) -> None:
        words = st.lists(st.sampled_from("ab c".split()), max_size=7)
        a, b, c = " ".join(one), " ".join(data.draw(words)), " ".join(data.draw(words))
        assert word_distance(a, a) == 0
        assert word_distance(a, b) == word_distance(b, a)
        assert word_distance(a, c) <= word_distance(a, b) + word_distance(b, c)
        assert abs(len(a.split()) - len(b.split())) <= word_distance(a, b)

    def test_keeping_more_than_are_written_is_an_error(self) -> None:
        with pytest.raises(ValidationError):
            AluConfig(n_variants=2)


TARGETS = TargetIndex.compile(
    [
        ForgetTarget(
            id="ft_1", title="t", kind="person", names=("Harold Vane",),
            phrases=(Phrase(text="Saltmarsh Lane 9"),),
            answers=("Harold Vane was a barber in Kuwait City.",),
        )
    ]
)  # fmt: skip
HEARD = Candidate("ft_1", "literal", 1.0, (Evidence("question"),))
SPOKEN = Candidate("ft_1", "literal", 1.0, (Evidence("draft"),))


class TestRedaction:
    def test_sentences_go_as_a_whole(self) -> None:
        text = "It rains. He was a barber! So what? Mr. X left.\nA line"
        assert without(text, [(11, 12)]) == "It rains. So what? Mr. X left.\nA line"
        assert without(text, [(11, 12)], rest=True) == "It rains."
        assert without(text, []) == text

    @given(st.text(), st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=4))
    def test_no_marked_character_is_left_and_nothing_is_new(
        self, text: str, spans: list[tuple[int, int]]
    ) -> None:
        marked = "".join(
            "\ue000"
            if any(a <= at < b for a, b in spans) and not char.isspace() and char not in ".!?\u2026"
            else char
            for at, char in enumerate(text)
        )
        left = without(marked, spans)
        assert "\ue000" not in left
        assert without(left, []) == left

    def test_an_answer_that_nobody_judged_is_not_said(self) -> None:
        assert minimal("Four.", TARGETS, [HEARD], None) == ""

    def test_what_nobody_judged_ends_before_the_first_hint(self) -> None:
        draft = "Leeds is a city. Harold Vane lives there. He was born there."
        assert minimal(draft, TARGETS, [SPOKEN], None) == "Leeds is a city."

    def test_what_was_judged_loses_what_was_found(self) -> None:
        draft = "Leeds is a city. He was a barber. It rains."
        found = Finding("ft_1", "relation", (17, 33))
        assert minimal(draft, TARGETS, [HEARD], [found]) == "Leeds is a city. It rains."

    def test_a_phrase_in_disguise_leaves_nothing(self) -> None:
        draft = "Leeds is a city. S4ltm4rsh L4ne 9 is in it."
        assert minimal(draft, TARGETS, [HEARD], []) == ""


class TestPurse:
    def purse(self, most_calls: int = 8) -> Purse:
        return Purse(most_calls=most_calls, clock=lambda: 0.0, pace=Pace())

    async def test_it_counts_failures_and_stops_when_empty(self) -> None:
        purse, speaker = self.purse(most_calls=2), ScriptedSpeaker(UpstreamError("x"), "a", "b")
        said = [await purse.hear("judge", speaker, (), max_tokens=1) for _ in range(3)]
        assert said == [None, "a", None]
        assert (purse.calls["judge"], purse.faults) == (2, ["judge:UpstreamError"])

    async def test_a_cancellation_passes(self) -> None:
        class Endless(ScriptedSpeaker):
            async def say(self, *given: Any, **rest: Any) -> Said:
                await asyncio.sleep(60)
                raise AssertionError

        asked = asyncio.create_task(self.purse().hear("judge", Endless(), (), max_tokens=1))
        await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    async def test_the_owner_s_own_deadline_is_not_taken_for_the_purse_s(self) -> None:
        with pytest.raises(TimeoutError):
            await self.purse().say("vanilla", ScriptedSpeaker(TimeoutError()), (), max_tokens=1)

    @given(st.lists(st.floats(0, 100), min_size=1, max_size=20))
    def test_the_pace_is_the_mean(self, seconds: list[float]) -> None:
        pace = Pace()
        for one in seconds:
            pace.note("judge", one)
        assert pace.of("judge") == pytest.approx(fmean(seconds))
        assert pace.of("critic") == 0
