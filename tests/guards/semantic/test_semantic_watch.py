"""A session of the semantic layer: what it holds, where it goes back to, what it does instead."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elision.contract import ALLOW, REFUSE, Context, Here, Redact, Refuse, Rewind, Session
from elision.errors import EngineError, GuardError
from elision.guards.gate.assessment import CLOSED, Assessment, Level
from elision.guards.semantic.session import ClosedSession, SemanticSession
from elision.guards.semantic.watch import SemanticWatch
from elision.testing.laws import awkward_rows, check_adjust, check_neutral, check_sessions
from elision.testing.tokenizers import byte_lexicon

from .semantic_cases import Planted, semantics, suspicion, target

ANSWER = "Zorblax grew up in Velm."
ROW = torch.zeros(259)
MARK = "[x]"
BYTES = byte_lexicon()


def watch(*targets: Any, level: Level = Level.OPEN, encoder: Any = None) -> SemanticWatch:
    known = semantics(*targets, encoder=encoder or Planted({"velmish": ("velm", 0.6)}))
    assessment = suspicion(level, *(t.id for t in targets))
    return SemanticWatch(semantics=known, assessment=assessment, marker=MARK)


def context(**fields: Any) -> Context:
    return Context(lexicon=BYTES, vocab_size=259, **fields)


def after(session: Session, text: str) -> Session:
    for byte in text.encode():
        session = session.advance(byte)
    return session


# --- laws ----------------------------------------------------------------------------------------


FULL = target(answers=(ANSWER, "1991"), phrases=("Velm harbour",))
REPLY = tuple("Hm. Velmish, and é. Zorblax grew up in Velm. Then".encode())


@pytest.mark.parametrize("level", [Level.CLOSED, Level.WATCH, Level.OPEN])
def test_a_session_abides_by_the_laws_of_sessions(level: Level) -> None:
    rows = awkward_rows(259)
    check_adjust(watch(FULL, level=level), context(), rows, tokens=REPLY)
    check_sessions(watch(FULL, level=level), context(), rows[:2], tokens=REPLY, other=46)


@pytest.mark.parametrize(
    "recipe",
    [
        SemanticWatch(semantics=semantics(FULL), assessment=CLOSED),
        watch(target(names=("Zorblax",))),
        watch(target(answers=(ANSWER,), action="observe")),
    ],
)
def test_a_layer_that_may_not_act_holds_and_changes_nothing(recipe: SemanticWatch) -> None:
    check_neutral(recipe, context(), awkward_rows(259), tokens=REPLY)


def test_a_closed_session_is_the_same_object_for_ever_and_embeds_nothing() -> None:
    encoder = Planted({})
    known = semantics(FULL, encoder=encoder)
    session = SemanticWatch(semantics=known, assessment=CLOSED).begin(context())
    assert after(session, ANSWER) is session
    assert session.finish() is session
    assert encoder.asked == []


pieces = st.sampled_from(["Velm ", "Zorblax grew up in Velm. ", "é", ". ", "It is 1991", "\n", "a"])


@given(st.lists(pieces, max_size=6).map("".join), st.sampled_from(["", "Hm. Zorblax grew"]))
def test_what_a_verdict_concerns_is_held(text: str, before: str) -> None:
    session: Session = watch(FULL).begin(context(before=before))
    starts, written, free = [0], "", 0
    for char in text:
        for byte in char.encode():
            session = session.advance(byte)
            starts.append(len(written))
        written += char
        starts[-1] = len(written)
        match session.verdict:
            case Rewind(to=to, bans=bans):
                assert starts[to] >= free
                assert bans == {text.encode()[to]}
        free = max(free, len(written) - session.held)


# --- where it goes back to -----------------------------------------------------------------------


def test_a_word_goes_back_to_the_token_that_began_it() -> None:
    session = after(watch(FULL).begin(context()), "It is Velm")
    assert session.verdict == ALLOW
    assert session.held == len("It is Velm")
    assert after(session, ",").verdict == Rewind(6, frozenset({ord("V")}))
    assert after(session, "ington,").verdict == ALLOW
    assert session.finish().verdict == Rewind(6, frozenset({ord("V")}))


def test_a_sentence_goes_back_to_its_first_word_twice_at_most() -> None:
    session = after(watch(FULL, level=Level.WATCH).begin(context()), f"Hm. {ANSWER}")
    assert session.held == len(ANSWER) + 1
    verdict = Rewind(4, frozenset({ord("Z")}), retries=2)
    assert after(session, " ").verdict == verdict
    assert session.finish().verdict == verdict
    assert session.finish().held == 0


def test_half_a_character_is_part_of_the_token_that_began_it() -> None:
    known = watch(target(phrases=("Élmish",)))
    session = after(known.begin(context()), "é élmish ")
    assert session.verdict == Rewind(3, frozenset({"é".encode()[0]}))


def test_text_that_the_reply_continues_is_never_gone_back_to() -> None:
    session = watch(FULL).begin(context(before="Well, Zorblax grew up in Ve"))
    session = after(session, "lm.")
    assert session.verdict == Rewind(0, frozenset({ord("l")}))
    redacting = watch(target(answers=(ANSWER,), action="redact"), level=Level.WATCH)
    end = after(redacting.begin(context(before="Zorblax grew up in Ve")), "lm.").finish()
    assert end.verdict == Rewind(0, frozenset({ord("l")}), 2, Redact(0, 3, MARK))


@pytest.mark.parametrize(
    ("action", "instead"),
    [("restrict", REFUSE), ("refuse", REFUSE), ("redact", Redact(4, 28, MARK))],
)
def test_what_is_done_when_no_way_back_is_left(action: Any, instead: Redact | Refuse) -> None:
    known = watch(target(answers=(ANSWER,), action=action), level=Level.WATCH)
    verdict = after(known.begin(context()), f"Hm. {ANSWER} ").verdict
    assert isinstance(verdict, Rewind)
    assert verdict.otherwise == instead


def test_an_open_gate_of_a_target_that_refuses_ends_the_answer_before_it_begins() -> None:
    refusing = target(probes=("Who is Zorblax?",), action="refuse")
    assert watch(refusing).begin(context()).verdict == REFUSE
    assert watch(refusing, level=Level.WATCH).begin(context()).verdict == ALLOW


def test_a_target_that_observes_is_only_counted() -> None:
    session = watch(target(answers=(ANSWER,), action="observe")).begin(context())
    for _ in range(2):
        session = after(session, f"{ANSWER} ")
        assert session.verdict == ALLOW
        assert session.held == 0
    assert isinstance(session, SemanticSession)
    assert session.finish().tally == {"semantic.observed": 2}


def test_a_word_that_is_nearly_too_near_is_made_unlikely_where_a_word_begins() -> None:
    session = after(watch(FULL).begin(context()), "velmish ")
    assert session.verdict == ALLOW
    out = session.adjust(ROW, Here(ROW))
    assert out[ord("v")].item() == pytest.approx(-1.0, abs=1e-4)
    assert out.count_nonzero() == 1
    inside = after(session, "w")
    assert inside.adjust(ROW, Here(ROW)) is ROW


def test_a_reply_cut_by_a_stop_text_is_judged_at_its_end_alone() -> None:
    session = watch(FULL, level=Level.WATCH).begin(context())
    assert isinstance(session, SemanticSession)
    cut = session.read(f"{ANSWER} {ANSWER}")
    assert cut.verdict == ALLOW
    assert cut.finish().verdict == REFUSE, "no token is known that could be chosen otherwise"
    within = after(session, ANSWER[:9])
    assert isinstance(within, SemanticSession)
    assert isinstance(within.read(ANSWER[9:]).finish().verdict, Rewind)
    assert session.read(f"{ANSWER} So").finish().verdict == ALLOW


# --- leak intent ---------------------------------------------------------------------------------


def test_a_model_about_to_tell_raises_the_level_by_one() -> None:
    session = after(watch(FULL, level=Level.WATCH).begin(context()), "It is ")
    assert isinstance(session, SemanticSession)
    assert session.notice({"guard.masked": 0.49}, ()) is session
    raised = session.notice({"guard.masked": 0.5}, ())
    assert after(session, "Velm ").verdict == ALLOW
    assert after(raised, "Velm ").verdict == Rewind(6, frozenset({ord("V")}))
    assert raised.notice({"guard.masked": 0.9}, ()) is raised
    assert raised.tally == {"semantic.raised": 1}


def test_a_closed_gate_is_raised_to_watch_from_there_on() -> None:
    known = SemanticWatch(semantics=semantics(FULL), assessment=CLOSED)
    closed = known.begin(context())
    assert isinstance(closed, ClosedSession)
    written = "Hm. Zorblax é grew"
    assert closed.notice({"guard.masked": 0.1}, [*written.encode()]) is closed
    session = closed.notice({"guard.masked": 0.7}, [*written.encode()])
    assert session.held == 0
    session = after(session, " up in Velm")
    assert session.held == len(" up in Velm")
    assert after(session, ". ").verdict == Rewind(20, frozenset({ord("u")}), retries=2)


# --- failures ------------------------------------------------------------------------------------


def test_a_broken_gate_stops_the_answer() -> None:
    failed: Future[Assessment] = Future()
    failed.set_exception(EngineError("broken"))
    with pytest.raises(GuardError, match="EngineError"):
        SemanticWatch(semantics=semantics(FULL), assessment=failed).begin(context())


def test_an_encoder_that_breaks_on_the_way_stops_the_answer() -> None:
    encoder = Planted({})
    session = watch(FULL, encoder=encoder).begin(context())

    def broken(texts: Any, *, tenant: str) -> Any:
        raise RuntimeError("cannot read zorblax")

    encoder.embed = broken  # type: ignore[method-assign]
    with pytest.raises(GuardError, match="RuntimeError") as caught:
        after(session, "Kelp and")
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_suspects_are_embedded_as_soon_as_the_gate_has_spoken() -> None:
    encoder = Planted({})
    assessed: Future[Assessment] = Future()
    recipe = SemanticWatch(semantics=semantics(FULL, encoder=encoder), assessment=assessed)
    assert encoder.asked == []
    assessed.set_result(suspicion())
    assert encoder.asked
    encoder.asked.clear()
    assert recipe.begin(context()).verdict == ALLOW
    assert encoder.asked == []
