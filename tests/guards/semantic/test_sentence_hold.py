"""The semantic layer on text alone: what leaves, whatever the pieces in which it comes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.contract import ALLOW, REFUSE
from elision.errors import GuardError
from elision.guards.gate.assessment import CLOSED, Level
from elision.guards.semantic.hold import SentenceHold

from .semantic_cases import semantics, suspicion, target

ANSWER = "Zorblax grew up in Velm."
MARK = "[x]"
texts = st.lists(
    st.sampled_from(
        [f"{ANSWER} ", "Velm ", "Fine. ", "é ", "\n", "It is so ", " 1991 ", ". ", "a "]
    ),
    max_size=8,
).map("".join)


def hold(*, action: Any = "redact", level: Level = Level.OPEN, **fields: Any) -> SentenceHold:
    known = semantics(target(answers=(ANSWER, "1991"), phrases=("Velm harbour",), action=action))
    return SentenceHold(known, suspicion(level), marker=MARK, **fields)


def said(held: SentenceHold, *parts: str) -> tuple[str, bool]:
    """Return what leaves of *parts*, and whether the answer was refused."""
    out = ""
    for step in [*[lambda p=part: held.feed(p) for part in parts], held.finish]:
        text, verdict = step()
        out += text
        if verdict != ALLOW:
            assert held.feed("more") == ("", REFUSE)
            return out, True
    assert held.held == 0
    return out, False


@given(texts, st.lists(st.integers(0, 120), max_size=4), st.sampled_from(["redact", "restrict"]))
def test_the_same_text_leaves_whatever_the_pieces(text: str, cuts: list[int], action: Any) -> None:
    ends = [*sorted(min(cut, len(text)) for cut in cuts), len(text)]
    parts = [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    assert said(hold(action=action), *parts) == said(hold(action=action), *text)


@given(texts, st.sampled_from(["redact", "restrict"]))
def test_what_must_not_be_said_never_leaves(text: str, action: Any) -> None:
    out, refused = said(hold(action=action), *text)
    assert "Velm " not in out
    assert ANSWER not in out
    assert refused or action == "redact" or out == text


def test_a_sentence_is_replaced_in_its_place() -> None:
    redacted = hold(level=Level.WATCH)
    assert said(redacted, f"Hm. {ANSWER} So it is.") == (f"Hm. {MARK} So it is.", False)
    assert redacted.n_redacted == 1


def test_a_word_in_a_sentence_that_falls_falls_with_it() -> None:
    assert said(hold(), f"Hm. {ANSWER} So.") == (f"Hm. {MARK} So.", False)
    assert said(hold(), "They say Velm is old.") == (f"They say {MARK} is old.", False)


@pytest.mark.parametrize("action", ["restrict", "refuse"])
def test_an_answer_that_cannot_be_chosen_otherwise_ends_before_the_sentence(action: Any) -> None:
    assert said(hold(action=action, level=Level.WATCH), f"Hm. {ANSWER} So.") == ("Hm.", True)


def test_an_open_gate_of_a_target_that_refuses_lets_nothing_out() -> None:
    assert said(hold(action="refuse"), "Hm.") == ("", True)


def test_a_closed_gate_holds_nothing() -> None:
    closed = SentenceHold(semantics(target(answers=(ANSWER,))), CLOSED)
    assert closed.feed(ANSWER[:9]) == (ANSWER[:9], ALLOW)
    assert said(closed, ANSWER) == (ANSWER, False)


def test_a_target_that_observes_is_counted_and_holds_nothing() -> None:
    observing = hold(action="observe", level=Level.WATCH)
    assert observing.feed("It is") == ("It is", ALLOW)
    assert said(observing, f". {ANSWER} {ANSWER}") == (f". {ANSWER} {ANSWER}", False)
    assert observing.observed == 2


def test_json_is_read_unescaped_and_refused_never_redacted() -> None:
    source = json.dumps({"a": "Fine.\n", "b": "It is so.\nZorblax grew up in V\u00e9lm.\n"})
    strict = hold(json=True, level=Level.WATCH)
    out, refused = said(strict, *source)
    assert refused
    assert source.startswith(out)
    assert out.endswith("It is so.")
    assert said(hold(json=True), json.dumps({"a": "Fine.\né"})) == (
        '{"a": "Fine.\\n\\u00e9"}',
        False,
    )


def test_a_broken_encoder_lets_nothing_out() -> None:
    held = hold()
    text, _ = held.feed("Kelp")

    def broken(texts: Any) -> Any:
        raise GuardError("broken")

    held._judge.semantics.embed = broken  # type: ignore[method-assign]
    with pytest.raises(GuardError):
        held.feed(" is.")
    assert text == ""
